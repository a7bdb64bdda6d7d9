/* SPDX-License-Identifier: MIT */
/* Changing and writing the XML: see xml.h. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "xml.h"

xmlNode *xml_add(xmlNode *parent, const char *name, const char *text)
{
    return xmlNewTextChild(parent, NULL, (const xmlChar *)name, (const xmlChar *)text);
}

bool xml_set(xmlNode *parent, const char *name, const char *text)
{
    xmlNode *node = xml_child(parent, name);
    xmlNode *new = xmlNewDocText(parent->doc, (const xmlChar *)text);

    if (!node || !new) {
        xmlFreeNode(new);
        return false;
    }
    while (node->children) {
        xmlNode *old = node->children;
        xmlUnlinkNode(old);
        xmlFreeNode(old);
    }
    xmlAddChild(node, new);
    return true;
}

char *xml_print(xmlDoc *doc, size_t *size)
{
    xmlChar *text = NULL;
    int length = 0;

    xmlDocDumpFormatMemoryEnc(doc, &text, &length, "UTF-8", 1);
    *size = (size_t)length;
    return (char *)text;
}

/* ---- A new bundle ---- */

static bool add_number(xmlNode *parent, const char *name, uint64_t number)
{
    char text[24];

    snprintf(text, sizeof(text), "%" PRIu64, number);
    return xml_add(parent, name, text);
}

/* The largest power of two up to `limit` that divides the number. */
static uint64_t factor(uint64_t number, uint64_t limit)
{
    uint64_t power = 1;

    while (power < limit && number % (2 * power) == 0) {
        power *= 2;
    }
    return power;
}

/* Cylinders, heads and sectors multiply to the size of the disk, as the format wants them to. */
static bool add_geometry(xmlNode *parameters, uint64_t disk_sectors)
{
    uint64_t sectors = factor(disk_sectors, 32);
    uint64_t heads = factor(disk_sectors / sectors, 16);

    return add_number(parameters, "Disk_size", disk_sectors) &&
           add_number(parameters, "Cylinders", disk_sectors / sectors / heads) &&
           add_number(parameters, "Heads", heads) && add_number(parameters, "Sectors", sectors) &&
           add_number(parameters, "Padding", 0);
}

/* What each disk of Parallels Desktop says beside. */
static bool add_desktop(xmlNode *parameters, const char *disk_name)
{
    char text[PLOOP_BUNDLE_GUID_SIZE];
    struct guid zero = {{0}}, uid;

    xmlNode *encryption = xml_add(parameters, "Encryption", NULL);
    guid_print(&zero, text);
    if (!encryption || !xml_add(encryption, "Engine", text) || !xml_add(encryption, "Data", "")) {
        return false;
    }
    if (guid_random(&uid)) {
        return false;
    }
    guid_print(&uid, text);
    if (!add_number(parameters, "PhysicalSectorSize", 4096) ||
        !add_number(parameters, "LogicSectorSize", 512) || !xml_add(parameters, "UID", text) ||
        !xml_add(parameters, "Name", disk_name)) {
        return false;
    }
    xmlNode *more = xml_add(parameters, "Miscellaneous", NULL);
    return more && xml_add(more, "CompatLevel", "level2") && add_number(more, "Bootable", 1) &&
           add_number(more, "ChangeState", 0) && add_number(more, "SuspendState", 0);
}

static bool add_storage(xmlNode *data, const struct xml_new *wanted, const char *guid)
{
    xmlNode *storage = data ? xml_add(data, "Storage", NULL) : NULL;

    if (!storage || !add_number(storage, "Start", 0) ||
        !add_number(storage, "End", wanted->disk_sectors) ||
        !add_number(storage, "Blocksize", wanted->block_sectors)) {
        return false;
    }
    xmlNode *image = xml_add(storage, "Image", NULL);
    return image && xml_add(image, "GUID", guid) && xml_add(image, "Type", "Compressed") &&
           xml_add(image, "File", wanted->image_name);
}

static bool add_all(xmlNode *root, const struct xml_new *wanted)
{
    char top[PLOOP_BUNDLE_GUID_SIZE], none[PLOOP_BUNDLE_GUID_SIZE];
    struct guid zero = {{0}};

    guid_print(&guid_of_top, top);
    guid_print(&zero, none);
    if (!xmlNewProp(root, (const xmlChar *)"Version", (const xmlChar *)"1.0")) {
        return false;
    }
    xmlNode *parameters = xml_add(root, "Disk_Parameters", NULL);
    if (!parameters || !add_geometry(parameters, wanted->disk_sectors) ||
        (wanted->disk_name && !add_desktop(parameters, wanted->disk_name)) ||
        !add_storage(xml_add(root, "StorageData", NULL), wanted, top)) {
        return false;
    }
    xmlNode *snapshots = xml_add(root, "Snapshots", NULL);
    xmlNode *shot = snapshots ? xml_add(snapshots, "Shot", NULL) : NULL;
    return shot && xml_add(shot, "GUID", top) && xml_add(shot, "ParentGUID", none);
}

xmlDoc *xml_create(const struct xml_new *wanted)
{
    xmlDoc *doc = xmlNewDoc((const xmlChar *)"1.0");
    xmlNode *root = doc ? xmlNewNode(NULL, (const xmlChar *)"Parallels_disk_image") : NULL;

    if (root) {
        xmlDocSetRootElement(doc, root);
    }
    if (!root || !add_all(root, wanted)) {
        xmlFreeDoc(doc);
        return NULL;
    }
    return doc;
}
