/* SPDX-License-Identifier: MIT */
/*
 * Reading the XML: see xml.h.
 *
 * The parser is told to replace no entities, to load no DTD and to use no network. It ends at a
 * document type already, so none of these can come up.
 */
#include "xml.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <libxml/parser.h>

/* ---- Parsing ---- */

static void refuse_document_type(void *context, const xmlChar *name, const xmlChar *external_id,
                                 const xmlChar *system_id)
{
    xmlParserCtxt *parser = context;

    (void)name;
    (void)external_id;
    (void)system_id;
    parser->_private = parser; /* says why it stopped */
    xmlStopParser(parser);
}

static int fault_of_parser(xmlParserCtxt *parser, const struct report *report)
{
    const xmlError *error = xmlCtxtGetLastError(parser);

    if (parser->_private) {
        return fault(report, -EUCLEAN, "a document type is not allowed");
    }
    if (error && error->code == XML_ERR_NO_MEMORY) {
        return fault(report, -ENOMEM, "%s", strerror(ENOMEM));
    }
    const char *text = error && error->message ? error->message : "not XML";
    return fault(report, -EUCLEAN, "line %d: %.*s", error ? error->line : 1,
                 (int)strcspn(text, "\n"), text);
}

int xml_parse(const char *text, size_t size, const struct report *report, xmlDoc **doc)
{
    xmlParserCtxt *parser = xmlNewParserCtxt();

    *doc = NULL;
    if (!parser) {
        return fault(report, -ENOMEM, "%s", strerror(ENOMEM));
    }
    parser->sax->internalSubset = refuse_document_type;
    *doc = xmlCtxtReadMemory(parser, text, (int)size, NULL, NULL,
                             XML_PARSE_NONET | XML_PARSE_NOERROR | XML_PARSE_NOWARNING |
                                 XML_PARSE_NOBLANKS);
    int error = *doc && !parser->_private ? 0 : fault_of_parser(parser, report);
    if (error) {
        xmlFreeDoc(*doc);
        *doc = NULL;
    }
    xmlFreeParserCtxt(parser);
    return error;
}

/* ---- Looking up ---- */

static xmlNode *named(xmlNode *node, const char *name)
{
    while (node &&
           (node->type != XML_ELEMENT_NODE || strcmp((const char *)node->name, name) != 0)) {
        node = node->next;
    }
    return node;
}

xmlNode *xml_child(const xmlNode *parent, const char *name)
{
    return parent ? named(parent->children, name) : NULL;
}

xmlNode *xml_next(const xmlNode *node, const char *name)
{
    return named(node->next, name);
}

static uint32_t count_children(const xmlNode *parent, const char *name)
{
    uint32_t count = 0;

    for (const xmlNode *node = xml_child(parent, name); node; node = xml_next(node, name)) {
        count++;
    }
    return count;
}

/* An element's text, without the spaces around it. NULL: no memory, or there are elements in it. */
static char *text_of(const xmlNode *node)
{
    static const char spaces[] = " \t\r\n";

    for (const xmlNode *child = node->children; child; child = child->next) {
        if (child->type != XML_TEXT_NODE && child->type != XML_CDATA_SECTION_NODE &&
            child->type != XML_COMMENT_NODE) {
            return NULL;
        }
    }
    char *content = (char *)xmlNodeGetContent(node);
    if (!content) {
        return NULL;
    }
    const char *begin = content + strspn(content, spaces);
    size_t length = strlen(begin);
    while (length && strchr(spaces, begin[length - 1])) {
        length--;
    }
    char *text = strndup(begin, length);
    xmlFree(content);
    return text;
}

/* The text of the only child element with this name: 0 or -errno, told. */
static int field(const xmlNode *parent, const char *name, const struct report *report, char **text)
{
    const xmlNode *node = xml_child(parent, name);

    if (!node || xml_next(node, name)) {
        return fault(report, -EUCLEAN, "%s has %s %s", parent->name, node ? "more than one" : "no",
                     name);
    }
    *text = text_of(node);
    return *text ? 0 : fault(report, -EUCLEAN, "%s cannot be read", name);
}

static int number_field(const xmlNode *parent, const char *name, const struct report *report,
                        uint64_t *number)
{
    char *text = NULL;
    int error = field(parent, name, report, &text);

    if (!text) {
        return error;
    }
    size_t digits = strspn(text, "0123456789");
    if (!digits || digits > 18 || text[digits]) {
        error = fault(report, -EUCLEAN, "%s '%.40s' is not a number", name, text);
    } else {
        *number = strtoull(text, NULL, 10);
    }
    free(text);
    return error;
}

static int guid_field(const xmlNode *parent, const char *name, const struct report *report,
                      struct guid *guid)
{
    char *text = NULL;
    int error = field(parent, name, report, &text);

    if (!text) {
        return error;
    }
    if (!guid_parse(text, guid)) {
        error = fault(report, -EUCLEAN, "%s '%.60s' is not a GUID in braces", name, text);
    }
    free(text);
    return error;
}

static xmlNode *find_by_guid(const xmlNode *parent, const char *name, const struct guid *guid)
{
    static const struct report silent;
    struct guid found;
    xmlNode *node = xml_child(parent, name);

    while (node && (guid_field(node, "GUID", &silent, &found) || !guid_equal(&found, guid))) {
        node = xml_next(node, name);
    }
    return node;
}

xmlNode *xml_storage(const xmlDoc *doc)
{
    return xml_child(xml_child(xmlDocGetRootElement(doc), "StorageData"), "Storage");
}

xmlNode *xml_snapshots(const xmlDoc *doc)
{
    return xml_child(xmlDocGetRootElement(doc), "Snapshots");
}

xmlNode *xml_find_image(const xmlDoc *doc, const struct guid *guid)
{
    return find_by_guid(xml_storage(doc), "Image", guid);
}

xmlNode *xml_find_shot(const xmlDoc *doc, const struct guid *guid)
{
    return find_by_guid(xml_snapshots(doc), "Shot", guid);
}

/* ---- Reading ---- */

/* OpenVZ's ploop names the key of a disk that the device mapper encrypts above its images. */
static int refuse_key(const xmlNode *encryption, const struct report *report)
{
    char *key = NULL;
    int error = xml_child(encryption, "KeyId") ? field(encryption, "KeyId", report, &key) : 0;

    if (key && key[0]) {
        error = fault(report, -ENOTSUP, "the disk is encrypted");
    }
    free(key);
    return error;
}

/* What would make the data something else than it seems. */
static int refuse_strange(const xmlNode *parameters, const struct report *report)
{
    const xmlNode *encryption = xml_child(parameters, "Encryption");
    struct guid engine;
    uint64_t padding = 0;
    int error = 0;

    if (xml_child(parameters, "Padding")) {
        error = number_field(parameters, "Padding", report, &padding);
    }
    if (!error && padding) {
        error = fault(report, -ENOTSUP, "a disk with padding is not supported");
    }
    if (!error && xml_child(encryption, "Engine")) {
        error = guid_field(encryption, "Engine", report, &engine);
        if (!error && !guid_is_zero(&engine)) {
            error = fault(report, -ENOTSUP, "the disk is encrypted");
        }
    }
    return error ? error : refuse_key(encryption, report);
}

static int read_image(const xmlNode *node, const struct report *report, struct image *image)
{
    char *type;
    int error = guid_field(node, "GUID", report, &image->guid);

    if (!error) {
        error = field(node, "File", report, &image->name);
    }
    if (!error) {
        error = field(node, "Type", report, &type);
    }
    if (error) {
        return error;
    }
    if (strcmp(type, "Compressed") == 0) {
        image->type = PLOOP_BUNDLE_EXPANDING;
    } else if (strcmp(type, "Plain") == 0) {
        image->type = PLOOP_BUNDLE_PLAIN;
    } else {
        error = fault(report, -EUCLEAN, "Type '%.40s' is neither Compressed nor Plain", type);
    }
    free(type);
    return error;
}

static int read_storage(const xmlNode *node, const struct report *report, struct storage *storage)
{
    int error = number_field(node, "Start", report, &storage->start);

    if (!error) {
        error = number_field(node, "End", report, &storage->end);
    }
    if (!error) {
        error = number_field(node, "Blocksize", report, &storage->block_sectors);
    }
    uint32_t count = count_children(node, "Image");
    storage->images = calloc(count ? count : 1, sizeof(storage->images[0]));
    if (!error && !storage->images) {
        error = fault(report, -ENOMEM, "%s", strerror(ENOMEM));
    }
    for (node = xml_child(node, "Image"); node && !error; node = xml_next(node, "Image")) {
        error = read_image(node, report, &storage->images[storage->image_count++]);
    }
    return error;
}

static int read_storages(const xmlNode *data, const struct report *report, struct model *model)
{
    uint32_t count = count_children(data, "Storage");
    int error = 0;

    model->storages = calloc(count ? count : 1, sizeof(model->storages[0]));
    if (!model->storages) {
        return fault(report, -ENOMEM, "%s", strerror(ENOMEM));
    }
    for (const xmlNode *node = xml_child(data, "Storage"); node && !error;
         node = xml_next(node, "Storage")) {
        error = read_storage(node, report, &model->storages[model->storage_count++]);
    }
    return error;
}

static int read_snapshots(const xmlNode *snapshots, const struct report *report,
                          struct model *model)
{
    uint32_t count = count_children(snapshots, "Shot");
    int error = 0;

    if (count > PLOOP_BUNDLE_SNAPSHOTS_MAX) {
        return fault(report, -EFBIG, "%u snapshots, more than %d", count,
                     PLOOP_BUNDLE_SNAPSHOTS_MAX);
    }
    model->snapshots = calloc(count ? count : 1, sizeof(model->snapshots[0]));
    if (!model->snapshots) {
        return fault(report, -ENOMEM, "%s", strerror(ENOMEM));
    }
    if (xml_child(snapshots, "TopGUID")) {
        model->names_top = true;
        error = guid_field(snapshots, "TopGUID", report, &model->top_guid);
    }
    for (const xmlNode *node = xml_child(snapshots, "Shot"); node && !error;
         node = xml_next(node, "Shot")) {
        struct snapshot *snapshot = &model->snapshots[model->snapshot_count++];
        error = guid_field(node, "GUID", report, &snapshot->guid);
        if (!error) {
            error = guid_field(node, "ParentGUID", report, &snapshot->parent_guid);
        }
    }
    return error;
}

static int read_all(const xmlNode *root, const struct report *report, struct model *model)
{
    static const char *const parts[] = {"Disk_Parameters", "StorageData", "Snapshots"};
    const xmlNode *found[3];

    if (!root || strcmp((const char *)root->name, "Parallels_disk_image") != 0) {
        return fault(report, -EUCLEAN, "not a Parallels_disk_image");
    }
    for (int i = 0; i < 3; i++) {
        found[i] = xml_child(root, parts[i]);
        if (!found[i] || xml_next(found[i], parts[i])) {
            return fault(report, -EUCLEAN, "there is %s %s", found[i] ? "more than one" : "no",
                         parts[i]);
        }
    }
    int error = refuse_strange(found[0], report);
    if (!error) {
        error = number_field(found[0], "Disk_size", report, &model->disk_sectors);
    }
    if (!error) {
        error = read_storages(found[1], report, model);
    }
    return error ? error : read_snapshots(found[2], report, model);
}

int xml_read(const xmlDoc *doc, const char *directory, const struct report *report,
             struct model *model)
{
    *model = (struct model){0};
    int error = read_all(xmlDocGetRootElement(doc), report, model);
    if (!error) {
        error = model_settle(model, directory, report);
    }
    if (error) {
        model_free(model);
    }
    return error;
}
