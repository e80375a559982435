/* Shared by the huffman files, seek_points.c and jpeg_reader.c. Before it come stdio.h and jpeglib.h. */
#ifndef FEEDRATE_HUFFMAN_H
#define FEEDRATE_HUFFMAN_H

#include "feedrate.h"

static inline uint64_t big_endian(const uint8_t *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? __builtin_bswap64(value) : value;
}

static inline uint64_t little_endian_64(const uint8_t *bytes)
{
    uint64_t value;
    memcpy(&value, bytes, sizeof value);
    return __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__ ? value : __builtin_bswap64(value);
}

/* ---- huffman_table.c ---- */

/* Bits that one lookup sees. With more, pairs take longer to make, and no longer fit beside the rest into 32 KB of cache:
 * 12 bits gave 1.31 times libjpeg's speed and not 1.37, 13 bits 1.17. */
enum { CODE_LOOKUP = 10, PAIR_LOOKUP = 11 };

/* A code of a file, and two coefficients at once: see the functions that take them apart. */
typedef uint32_t Code, Pair;

/* A table as the file has it, and what was made from it. */
typedef struct {
    JHUFF_TBL source;
    int is_dc; /* -1: making it failed; zeroed memory is a table without codes */
    int has_pairs;
    int32_t end[17];    /* by length: the first 16 bits that are above every code of it */
    int32_t offset[17]; /* by length: from a code to its symbol's place */
    Code codes[1 << CODE_LOOKUP];
    Pair pairs[1 << PAIR_LOOKUP];
} HuffmanTable;

enum { TABLE_MADE = 1, TABLE_KEPT };
/* Make the table of a file, or keep it where it is as it was. 0 where the source is not valid. */
int huffman_table_make(HuffmanTable *table, const JHUFF_TBL *source, int is_dc);
/* And its pairs. Of a table for AC. */
void huffman_table_make_pairs(HuffmanTable *table);
/* The code at the top of `bits`, if it is longer than CODE_LOOKUP; 0 where there is no such code. */
Code huffman_table_find(const HuffmanTable *table, uint64_t bits);

/* Bits of a code, from the lowest on: its own (5), with the value that follows it (5), how many coefficients to go on by before that value (7;
 * 64: the block is at its end), and how many bits the value has (4; 0: there is none). */
static inline uint32_t code_bits(Code code)
{
    return code & 31;
}

static inline uint32_t all_bits(Code code)
{
    return code >> 5 & 31;
}

static inline int advance(Code code)
{
    return (int)(code >> 10 & 127);
}

static inline uint32_t value_bits(Code code)
{
    return code >> 17;
}

/* The value of `size` bits, 1 or more, at the top of `bits`: those that begin with 0 are negative. */
static inline int value_of(uint64_t bits, uint32_t size)
{
    uint64_t negative = (uint64_t)((int64_t)~bits >> 63); /* all ones or none */
    return (int)(((bits ^ negative) >> (64 - size)) ^ negative) - (int)negative;
}

/* Bits of a pair, from the lowest on: how many it takes (4), how far from the coefficient that is due the first value
 * stands (4), and the second (5), whether there is a second (1), whether the block is at its end behind them (1), whether
 * this is no pair, but a code that must be decoded by itself (1), and the values (8 and 8, signed). A value that there is
 * none of is 0, at a place that nothing has been put to. */
enum { PAIR_HAS_SECOND = 1 << 13, PAIR_ENDS = 1 << 14, NO_PAIR = 1 << 15 };

static inline uint32_t pair_bits(Pair pair)
{
    return pair & 15;
}

static inline int first_place(Pair pair)
{
    return (int)(pair >> 4 & 15);
}

static inline int second_place(Pair pair)
{
    return (int)(pair >> 8 & 31);
}

/* ---- seek_points.c ---- */

/* Where decoding of a file can begin; all 0 where only its start is known. */
typedef struct {
    const uint8_t *points, *scan; /* the list, and what is compressed */
    size_t scan_bytes;
    unsigned spacing, per_row; /* units from one point of a row to the next, and points a row */
} SeekPoints;

typedef struct {
    uint32_t position; /* bits from the scan's start */
    int16_t dc[3];     /* that the next blocks' are told as differences from */
} SeekPoint;

/* What tells points that were damaged, or are another file's; of what is noted, and the compressed data. */
uint32_t seek_points_check(const uint8_t *noted, size_t size, const uint8_t *scan, size_t scan_bytes);
/* For a file that has been started, and of which nothing has been read yet. 0 where what is noted cannot be of this file. */
int seek_points_use(struct jpeg_decompress_struct *info, const uint8_t *noted, size_t size, SeekPoints *seek);

/* ---- the decoder's innermost part, of one block after the other (huffman.c) and of rows at once (huffman_rows.c) ---- */

/* place in the file → place in the block */
extern const uint8_t huffman_natural[DCTSIZE2];
enum { MOST_DC = 1 << 20 };

/* Where reading compressed data stands. */
typedef struct {
    uint64_t bits; /* to come, from the top; num_bits of them, or more */
    const uint8_t *at;
    int num_bits;
} BitReader;

/* Of those up to `end`; negative where more were used than there are. */
static inline int64_t bits_left(const BitReader *in, const uint8_t *end)
{
    return 8 * (int64_t)(end - in->at) + in->num_bits;
}

/* Afterwards there are 56 bits or more: enough for any code with its value, and to look up the next. */
static inline __attribute__((always_inline)) void refill(BitReader *in)
{
    in->bits |= big_endian(in->at) >> in->num_bits;
    in->at += (63 - in->num_bits) >> 3;
    in->num_bits |= 56;
}

static inline __attribute__((always_inline)) void take(BitReader *in, uint32_t count)
{
    in->bits <<= count;
    in->num_bits -= (int)count;
}

/* A block's DC coefficient, from the one before of its component to its own. 0 where something is wrong. */
static inline __attribute__((always_inline)) int next_dc(BitReader *in, const HuffmanTable *table, int *dc)
{
    refill(in);
    Code code = table->codes[in->bits >> (64 - CODE_LOOKUP)];
    if (!code && !(code = huffman_table_find(table, in->bits)))
        return 0;
    int value = *dc;
    if (value_bits(code))
        value += value_of(in->bits << code_bits(code), value_bits(code));
    take(in, all_bits(code));
    if (value < -MOST_DC || value > MOST_DC)
        return 0;
    *dc = value;
    return 1;
}

/* An AC coefficient or two, into zeros, or nowhere if not `is_wanted`. `place` is of the coefficient that is due, and
 * goes on to the next; DCTSIZE2 or more: it was the last. 0 where something is wrong. */
static inline __attribute__((always_inline)) int next_ac(
    BitReader *in, const HuffmanTable *table, int by_pairs, int is_wanted, JCOEF *block, int *place)
{
    Pair pair = by_pairs ? table->pairs[in->bits >> (64 - PAIR_LOOKUP)] : NO_PAIR;
    Code code = by_pairs ? 0 : table->codes[in->bits >> (64 - CODE_LOOKUP)];
    refill(in); /* behind the lookup, which need not wait for it */
    int second = *place + second_place(pair), next = second + ((pair & PAIR_HAS_SECOND) != 0);
    if (by_pairs && __builtin_expect(!(pair & NO_PAIR) && next < DCTSIZE2, 1)) {
        if (is_wanted) {
            block[huffman_natural[*place + first_place(pair)]] = (int8_t)(pair >> 16);
            block[huffman_natural[second]] = (int8_t)(pair >> 24);
        }
        take(in, pair_bits(pair));
        *place = pair & PAIR_ENDS ? DCTSIZE2 : next;
        return 1;
    }
    if (by_pairs)
        code = table->codes[in->bits >> (64 - CODE_LOOKUP)];
    if (__builtin_expect(!code, 0) && !(code = huffman_table_find(table, in->bits)))
        return 0;
    *place += advance(code);
    if (value_bits(code)) {
        if (*place >= DCTSIZE2)
            return 0;
        if (is_wanted)
            block[huffman_natural[*place]] = (JCOEF)value_of(in->bits << code_bits(code), value_bits(code));
        ++*place;
    }
    take(in, all_bits(code));
    return 1;
}

/* ---- huffman_rows.c ---- */

/* Where decoding of a stretch stands. */
typedef struct {
    BitReader in;
    int place;    /* in its block, of the coefficient that is due */
    JCOEF *block; /* the one under way */
    const HuffmanTable *ac;
} Cursor;

/* Part of a row, from one seek point to some unit behind it, on the way. */
typedef struct {
    Cursor cursor;
    const uint8_t *end; /* of its bytes */
    int number;         /* in its unit, of the block that is due next */
    int blocks_left;    /* that are due behind the one under way */
    int last_dc[MAX_COMPS_IN_SCAN];
} Stretch;

enum { MOST_STRETCHES = 2 };
struct Huffman;
/* Decode the blocks that are left of one stretch or of two, into zeros. 0 where something is wrong. */
typedef int StretchDecoder(
    const struct jpeg_decompress_struct *info, const struct Huffman *huffman, Stretch *stretches, int count);
StretchDecoder *stretch_decoder(int has_pairs, int may_use_bmi2);

/* ---- huffman.c ---- */

/* What reads a unit's blocks in libjpeg's place. */
typedef boolean UnitDecoder(j_decompress_ptr info, JBLOCKROW *blocks);

/* Behind the bytes: more than the longest block takes, so that reading on into damage stays in memory. */
enum { MOST_BLOCK_BITS = DCTSIZE2 * (16 + 15), HUFFMAN_SLACK = MOST_BLOCK_BITS / 8 + 32 };

/* One reader's; memory and tables are kept from image to image. */
typedef struct Huffman {
    Buffer bytes; /* compressed data up to the next marker, without what is stuffed into them */
    HuffmanTable *dc, *ac; /* as many as a file can have of each, in one piece of memory */
    BitReader in;
    const uint8_t *end;
    int last_dc[MAX_COMPS_IN_SCAN];
    unsigned until_restart, next_restart;
    JDIMENSION row, column, first_column, last_column; /* of the unit to come; from where to where pixels are wanted */
    JDIMENSION last_row;                               /* of units, of which pixels are wanted */
    UnitDecoder *decode_unit;
    /* with seek points: */
    SeekPoints seek;
    StretchDecoder *decode_stretches;
    Buffer stretch_bytes[MOST_STRETCHES];
    Buffer ahead;                        /* coefficients of whole rows, from a point on */
    JDIMENSION first_ahead, rows_ahead; /* which rows those are, and how many */
} Huffman;

static inline void next_column(const struct jpeg_decompress_struct *info, Huffman *huffman)
{
    if (++huffman->column == info->MCUs_per_row) {
        huffman->column = 0;
        huffman->row++;
    }
}

/* Pixels of a unit, from left to right. A component alone has units of one block, whatever its sampling factors say. */
static inline JDIMENSION unit_width(const struct jpeg_decompress_struct *info)
{
    return DCTSIZE * (JDIMENSION)(info->comps_in_scan == 1 ? 1 : info->max_h_samp_factor);
}

/* Decode the codes of a file that has been started, and of which nothing has been read yet, if this is of the kind for
 * it; else libjpeg goes on doing it, and 0 is returned. What pixel columns outside of [left, left + width) become is left
 * open, and with seek points, unless those are plainly another file's, what rows become that nobody asks for. All errors
 * are libjpeg's error_exit, or the reader's escape.
 *
 * seek, seek_bytes   what is noted of seek points; NULL and 0 where nothing is */
int huffman_take_over(
    struct jpeg_decompress_struct *info,
    Huffman *huffman,
    JDIMENSION left,
    JDIMENSION width,
    const uint8_t *seek,
    size_t seek_bytes);
/* The unit decoder of a file with seek points; in seek_points.c. */
boolean seeking_unit(j_decompress_ptr info, JBLOCKROW *blocks);
void huffman_free(Huffman *huffman);
/* The one that reads this file; in jpeg_reader.c. */
Huffman *huffman_of(struct jpeg_decompress_struct *info);

#endif
