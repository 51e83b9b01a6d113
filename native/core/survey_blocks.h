/*
 * What sharing blocks below the page (FGBI) would save on top of patching and compression: a page as references to blocks that
 * are somewhere already, and the rest of it packed. For the survey; the store does not do it.
 */
#ifndef SUBPAGE_SURVEY_BLOCKS_H
#define SUBPAGE_SURVEY_BLOCKS_H

#include "pack.h"

struct block_table;

/* Remembers the places of blocks of one size (64 B to 1 KiB), as many as fit into so many bytes. NULL without memory. */
struct block_table *block_table_new(uint32_t block_bytes, uint64_t memory_bytes);
void block_table_free(struct block_table *table);

/* From now on the blocks of this page can be referred to. */
void block_table_add(struct block_table *table, const uint8_t *page, uint32_t number);

/*
 * The bytes that the page takes with its known blocks as references and the rest packed: 8 bytes for each run of blocks that
 * also follow each other where they are known. SP_PAGE_BYTES when that is no shorter.
 */
size_t block_table_code(const struct block_table *table, struct sp_packer *packer, const uint8_t *page);

#endif
