/*
 * Compression of what is sent: lz4 piece by piece, or zstd level 1 as one stream for the length of a connection, so that a
 * piece is compressed against those before it (up to 4 MiB back). The pieces must be taken in the order they were made.
 */
#ifndef SUBPAGE_SQUEEZE_H
#define SUBPAGE_SQUEEZE_H

#include "vector.h"

enum sp_squeeze { SP_SQUEEZE_NONE, SP_SQUEEZE_LZ4, SP_SQUEEZE_ZSTD, SP_SQUEEZE_COUNT };

struct sp_squeezer;
struct sp_squeezer *sp_squeezer_new(void); /* NULL without memory */
void sp_squeezer_free(struct sp_squeezer *squeezer);
/*
 * Appends the compressed bytes. Returns the method that was used: lz4 that does not shrink is left out, and then nothing is
 * appended; zstd is a stream and cannot be taken back. SP_SQUEEZE_COUNT: no memory, and the squeezer must not be used again.
 */
enum sp_squeeze sp_squeeze(struct sp_squeezer *squeezer, enum sp_squeeze method, const uint8_t *data, size_t bytes,
                           struct sp_vector *out);

struct sp_unsqueezer;
struct sp_unsqueezer *sp_unsqueezer_new(void);
void sp_unsqueezer_free(struct sp_unsqueezer *unsqueezer);
/* Fills exactly `bytes` at `out`; false when the data is damaged, or stands for another length. */
bool sp_unsqueeze(struct sp_unsqueezer *unsqueezer, enum sp_squeeze method, const uint8_t *data, size_t data_bytes,
                  uint8_t *out, size_t bytes);

#endif
