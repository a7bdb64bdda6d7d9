/* SPDX-License-Identifier: MIT */
/*
 * The XML of a bundle, as libxml2 has it: a document is parsed, read into a model, looked up,
 * changed and written. What we do not know stays in it as it is.
 */
#ifndef BUNDLE_XML_H
#define BUNDLE_XML_H

#include <stddef.h>

#include <libxml/tree.h>

#include "model.h"

/*
 * Parse. Refuses a document type, so that there are no entities, and asks for no other file. 0,
 * -EUCLEAN or -ENOMEM, told.
 */
int xml_parse(const char *text, size_t size, const struct report *report, xmlDoc **doc);

/* Read a document into a model, and settle that. 0 or -errno, told, with an empty model. */
int xml_read(const xmlDoc *doc, const char *directory, const struct report *report,
             struct model *model);

/* The first, or the next, child element with this name; NULL: none. */
xmlNode *xml_child(const xmlNode *parent, const char *name);
xmlNode *xml_next(const xmlNode *node, const char *name);

/* The element that an Image or a Shot is, by its GUID; NULL: none. */
xmlNode *xml_find_image(const xmlDoc *doc, const struct guid *guid);
xmlNode *xml_find_shot(const xmlDoc *doc, const struct guid *guid);

/* The StorageData's only Storage, and the Snapshots, of a document that was read. */
xmlNode *xml_storage(const xmlDoc *doc);
xmlNode *xml_snapshots(const xmlDoc *doc);

/* Add an element with a text to a parent. NULL: no memory. */
xmlNode *xml_add(xmlNode *parent, const char *name, const char *text);
/* Replace the text of a parent's child element. False: no memory. */
bool xml_set(xmlNode *parent, const char *name, const char *text);

/* The document as text, to be freed with xmlFree(); NULL: no memory. */
char *xml_print(xmlDoc *doc, size_t *size);

/* A document for a new bundle, whose only image is `name`; NULL: no memory. */
struct xml_new {
    uint64_t disk_sectors, block_sectors;
    const char *image_name;
    const char *disk_name; /* NULL: as OpenVZ has it, without what Parallels Desktop adds */
};
xmlDoc *xml_create(const struct xml_new *wanted);

#endif
