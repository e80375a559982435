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

static inline __attribute__((always_inline)) void refill(Cursor *cursor)
{
    cursor->bits |= big_endian(cursor->at) >> cursor->num_bits;
    cursor->at += (63 - cursor->num_bits) >> 3;
    cursor->num_bits |= 56;
}

static inline __attribute__((always_inline)) void take(Cursor *cursor, uint32_t count)
{
    cursor->bits <<= count;
    cursor->num_bits -= (int)count;
}

/* The next block's DC coefficient, if there is one more. */
static inline __attribute__((always_inline)) int begin_block(
    const struct jpeg_decompress_struct *info, const Huffman *huffman, Cursor *cursor, Stretch *stretch)
{
    if (8 * (int64_t)(stretch->end - cursor->at) + cursor->num_bits < 0)
        return WRONG;
    if (stretch->blocks_left == 0)
        return DONE;
    stretch->blocks_left--;
    int number = info->MCU_membership[stretch->number];
    stretch->number = stretch->number + 1 == info->blocks_in_MCU ? 0 : stretch->number + 1;
    const HuffmanTable *dc = huffman->dc + info->cur_comp_info[number]->dc_tbl_no;
    cursor->ac = huffman->ac + info->cur_comp_info[number]->ac_tbl_no;
    refill(cursor);
    Code code = dc->codes[cursor->bits >> (64 - CODE_LOOKUP)];
    if (!code && !(code = huffman_table_find(dc, cursor->bits)))
        return WRONG;
    int value = stretch->last_dc[number];
    if (value_bits(code))
        value += value_of(cursor->bits << code_bits(code), value_bits(code));
    take(cursor, all_bits(code));
    if (value < -MOST_DC || value > MOST_DC)
        return WRONG;
    stretch->last_dc[number] = value;
    cursor->block += DCTSIZE2;
    cursor->block[0] = (JCOEF)value;
    cursor->place = 1;
    return GOES_ON;
}

/* A coefficient or two; behind the last of a block the next one is begun. */
static inline __attribute__((always_inline)) int step(
    const struct jpeg_decompress_struct *info, const Huffman *huffman, Cursor *cursor, Stretch *stretch, int by_pairs)
{
    Pair pair = by_pairs ? cursor->ac->pairs[cursor->bits >> (64 - PAIR_LOOKUP)] : NO_PAIR;
    Code code = by_pairs ? 0 : cursor->ac->codes[cursor->bits >> (64 - CODE_LOOKUP)];
    refill(cursor); /* behind the lookup, which need not wait for it */
    int second = cursor->place + second_place(pair), next = second + ((pair & PAIR_HAS_SECOND) != 0);
    if (by_pairs && __builtin_expect(!(pair & NO_PAIR) && next < DCTSIZE2, 1)) {
        cursor->block[huffman_natural[cursor->place + first_place(pair)]] = (int8_t)(pair >> 16);
        cursor->block[huffman_natural[second]] = (int8_t)(pair >> 24);
        take(cursor, pair_bits(pair));
        cursor->place = pair & PAIR_ENDS ? DCTSIZE2 : next;
    } else {
        if (by_pairs)
            code = cursor->ac->codes[cursor->bits >> (64 - CODE_LOOKUP)];
        if (__builtin_expect(!code, 0) && !(code = huffman_table_find(cursor->ac, cursor->bits)))
            return WRONG;
        cursor->place += advance(code);
        if (value_bits(code)) {
            if (cursor->place >= DCTSIZE2)
                return WRONG;
            cursor->block[huffman_natural[cursor->place++]] = (JCOEF)value_of(cursor->bits << code_bits(code), value_bits(code));
        }
        take(cursor, all_bits(code));
    }
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
