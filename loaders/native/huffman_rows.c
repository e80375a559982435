/* Huffman codes of one row of blocks or of two at once, from seek points on.
 *
 * Each code begins where the one before it ends, so one row after the other leaves a processor waiting, mostly for tables
 * it has just looked into. Of two rows whose beginnings are known, each waits while the other goes on: both take hardly
 * more time than one and a half. A third brings nothing, there are too few registers. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include "huffman.h"

enum { WRONG = -1, GOES_ON, DONE };

/* The next block's DC coefficient, if there is one more. */
static inline __attribute__((always_inline)) int begin_block(
    const struct jpeg_decompress_struct *info, const Huffman *huffman, Cursor *cursor, Stretch *stretch)
{
    if (bits_left(&cursor->in, stretch->end) < 0)
        return WRONG;
    if (stretch->blocks_left == 0)
        return DONE;
    stretch->blocks_left--;
    int number = info->MCU_membership[stretch->number];
    stretch->number = stretch->number + 1 == info->blocks_in_MCU ? 0 : stretch->number + 1;
    const HuffmanTable *dc = huffman->dc + info->cur_comp_info[number]->dc_tbl_no;
    cursor->ac = huffman->ac + info->cur_comp_info[number]->ac_tbl_no;
    if (!next_dc(&cursor->in, dc, stretch->last_dc + number))
        return WRONG;
    cursor->block += DCTSIZE2;
    cursor->block[0] = (JCOEF)stretch->last_dc[number];
    cursor->place = 1;
    return GOES_ON;
}

/* A coefficient or two; behind the last of a block the next one is begun. */
static inline __attribute__((always_inline)) int step(
    const struct jpeg_decompress_struct *info, const Huffman *huffman, Cursor *cursor, Stretch *stretch, int by_pairs)
{
    if (!next_ac(&cursor->in, cursor->ac, by_pairs, 1, cursor->block, &cursor->place))
        return WRONG;
    return cursor->place < DCTSIZE2 ? GOES_ON : begin_block(info, huffman, cursor, stretch);
}

/* What is stepped through lies in copies, which can stay in registers, and goes back at the end. */
static inline __attribute__((always_inline)) int one_stretch(
    const struct jpeg_decompress_struct *info, const Huffman *huffman, Stretch *stretch, int by_pairs)
{
    Cursor cursor = stretch->cursor;
    int state = begin_block(info, huffman, &cursor, stretch);
    while (state == GOES_ON)
        state = step(info, huffman, &cursor, stretch, by_pairs);
    stretch->cursor = cursor;
    return state == DONE;
}

static inline __attribute__((always_inline)) int two_stretches(
    const struct jpeg_decompress_struct *info, const Huffman *huffman, Stretch *stretches, int by_pairs)
{
    Cursor one = stretches[0].cursor, two = stretches[1].cursor;
    int state = begin_block(info, huffman, &one, stretches), other = begin_block(info, huffman, &two, stretches + 1);
    if (state != GOES_ON || other != GOES_ON)
        return 0;
    for (;;) {
        if ((state = step(info, huffman, &one, stretches, by_pairs)) != GOES_ON) {
            while (state == DONE && other == GOES_ON)
                other = step(info, huffman, &two, stretches + 1, by_pairs);
            break;
        }
        if ((other = step(info, huffman, &two, stretches + 1, by_pairs)) != GOES_ON) {
            while (other == DONE && state == GOES_ON)
                state = step(info, huffman, &one, stretches, by_pairs);
            break;
        }
    }
    stretches[0].cursor = one;
    stretches[1].cursor = two;
    return state == DONE && other == DONE;
}

static int by_codes(const struct jpeg_decompress_struct *info, const Huffman *huffman, Stretch *stretches, int count)
{
    return count == 2 ? two_stretches(info, huffman, stretches, 0) : one_stretch(info, huffman, stretches, 0);
}

static int by_pairs(const struct jpeg_decompress_struct *info, const Huffman *huffman, Stretch *stretches, int count)
{
    return count == 2 ? two_stretches(info, huffman, stretches, 1) : one_stretch(info, huffman, stretches, 1);
}

#if HAS_AVX2_CODE
__attribute__((target("bmi2"))) static int by_pairs_bmi2(
    const struct jpeg_decompress_struct *info, const Huffman *huffman, Stretch *stretches, int count)
{
    return count == 2 ? two_stretches(info, huffman, stretches, 1) : one_stretch(info, huffman, stretches, 1);
}
#endif

StretchDecoder *stretch_decoder(int has_pairs, int may_use_bmi2)
{
#if HAS_AVX2_CODE
    if (has_pairs && may_use_bmi2)
        return by_pairs_bmi2;
#endif
    (void)may_use_bmi2;
    return has_pairs ? by_pairs : by_codes;
}
