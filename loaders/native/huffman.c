/* The Huffman codes of a baseline JPEG in one scan, decoded in libjpeg's place, to the same coefficients.
 *
 * Most of decoding a photo is this, one code after the other, since where a code begins is known when the one before it has
 * been looked up. libjpeg takes two dependent steps for each coefficient, its code and then its value. Here one lookup gives
 * two coefficients, with their values, wherever they are short enough together, and the end of the block; the bytes
 * behind are fetched meanwhile. Whatever is not quite as it should be is given up: who knows what to say of it is asked
 * then. Source: ITU-T T.81, F.2.2. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include "huffman.h"

/* Pairs pay for being made in a file of that size, or else in the next one with the same table. */
enum { LARGE_BYTES = 1 << 16 };

/* The beginning of what libjpeg-turbo 2 and 3 have by this name, in a header that is not installed everywhere. */
struct jpeg_entropy_decoder {
    void (*start_pass)(j_decompress_ptr info);
    UnitDecoder *decode_mcu;
};

/* For measurements and tests: 0 leaves the codes to libjpeg, 2 does without BMI2; and of how many files they were decoded
 * here. */
int32_t feedrate_own_codes = 1;
uint32_t feedrate_files_taken_over = 0;

/* place in the file → place in the block */
const uint8_t huffman_natural[DCTSIZE2] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
};

static _Noreturn void give_up(j_decompress_ptr info)
{
    info->err->error_exit((j_common_ptr)info);
    __builtin_unreachable();
}

/* Take what is compressed up to the next marker, and stop there. */
static void take_segment(j_decompress_ptr info, Huffman *huffman)
{
    const uint8_t *from = info->src->next_input_byte, *end = from + info->src->bytes_in_buffer, *found;
    uint8_t *to = buffer_reserve(&huffman->bytes, (size_t)(end - from) + HUFFMAN_SLACK);
    if (!to)
        give_up(info);
    huffman->in = (BitReader){.at = to};
    for (;;) {
        found = from < end ? memchr(from, 0xFF, (size_t)(end - from)) : NULL;
        if (!found || found + 1 >= end)
            give_up(info);
        size_t size = (size_t)(found - from) + (found[1] == 0); /* 0xFF itself is followed by a 0 */
        memcpy(to, from, size);
        to += size;
        if (found[1] != 0)
            break;
        from = found + 2;
    }
    memset(to, 0, HUFFMAN_SLACK);
    huffman->end = to;
    info->src->next_input_byte = found;
    info->src->bytes_in_buffer = (size_t)(end - found);
}

static void restart(j_decompress_ptr info, Huffman *huffman)
{
    int64_t left = bits_left(&huffman->in, huffman->end);
    while (info->src->bytes_in_buffer > 2 && info->src->next_input_byte[1] == 0xFF) { /* any number may come before it */
        info->src->next_input_byte++;
        info->src->bytes_in_buffer--;
    }
    if (left < 0 || left > 7 || info->src->next_input_byte[1] != JPEG_RST0 + huffman->next_restart)
        give_up(info);
    info->src->next_input_byte += 2;
    info->src->bytes_in_buffer -= 2;
    take_segment(info, huffman);
    memset(huffman->last_dc, 0, sizeof huffman->last_dc);
    huffman->until_restart = info->restart_interval;
    huffman->next_restart = (huffman->next_restart + 1) & 7;
}

/* One block, into zeros; NULL where nobody wants it. 0 where something is wrong. */
static inline __attribute__((always_inline)) int next_block(
    Huffman *huffman, const HuffmanTable *dc, const HuffmanTable *ac, int component, int by_pairs, JCOEF *block)
{
    BitReader in = huffman->in; /* a copy, which can stay in registers */
    if (!next_dc(&in, dc, huffman->last_dc + component))
        return 0;
    if (block)
        block[0] = (JCOEF)huffman->last_dc[component];
    for (int place = 1; place < DCTSIZE2;)
        if (!next_ac(&in, ac, by_pairs, block != NULL, block, &place))
            return 0;
    huffman->in = in;
    return 1;
}

/* The blocks of one unit, in libjpeg's place. */
static inline __attribute__((always_inline)) boolean next_unit(j_decompress_ptr info, JBLOCKROW *blocks, int by_pairs)
{
    Huffman *huffman = huffman_of(info);
    if (info->restart_interval) {
        if (huffman->until_restart == 0)
            restart(info, huffman);
        huffman->until_restart--;
    }
    if (huffman->column < huffman->first_column || huffman->column > huffman->last_column)
        blocks = NULL;
    next_column(info, huffman);
    for (int i = 0; i < info->blocks_in_MCU; i++) {
        int number = info->MCU_membership[i];
        const HuffmanTable *dc = huffman->dc + info->cur_comp_info[number]->dc_tbl_no;
        const HuffmanTable *ac = huffman->ac + info->cur_comp_info[number]->ac_tbl_no;
        int is_sound = blocks ? next_block(huffman, dc, ac, number, by_pairs, *blocks[i])
                              : next_block(huffman, dc, ac, number, by_pairs, NULL);
        if (!is_sound || bits_left(&huffman->in, huffman->end) < 0)
            give_up(info);
    }
    return TRUE;
}

static boolean unit_by_codes(j_decompress_ptr info, JBLOCKROW *blocks)
{
    return next_unit(info, blocks, 0);
}

static boolean unit_by_pairs(j_decompress_ptr info, JBLOCKROW *blocks)
{
    return next_unit(info, blocks, 1);
}

#if HAS_AVX2_CODE
/* With shifts that need no particular register. */
__attribute__((target("bmi2"))) static boolean unit_by_pairs_bmi2(j_decompress_ptr info, JBLOCKROW *blocks)
{
    return next_unit(info, blocks, 1);
}
#endif

static int is_one_baseline_scan(struct jpeg_decompress_struct *info)
{
    if (jpeg_has_multiple_scans(info) || info->arith_code || info->Ss != 0 || info->Se != DCTSIZE2 - 1 || info->Ah != 0 ||
        info->Al != 0)
        return 0;
    for (int i = 0; i < info->comps_in_scan; i++) {
        const jpeg_component_info *part = info->cur_comp_info[i];
        if (part->dc_tbl_no < 0 || part->dc_tbl_no >= NUM_HUFF_TBLS || !info->dc_huff_tbl_ptrs[part->dc_tbl_no] ||
            part->ac_tbl_no < 0 || part->ac_tbl_no >= NUM_HUFF_TBLS || !info->ac_huff_tbl_ptrs[part->ac_tbl_no])
            return 0;
    }
    return 1;
}

/* 0 where a table is not valid, or there is no memory. */
static int make_tables(const struct jpeg_decompress_struct *info, Huffman *huffman, int is_large, int *by_pairs)
{
    if (!huffman->dc && !(huffman->dc = calloc(2 * NUM_HUFF_TBLS, sizeof(HuffmanTable))))
        return 0;
    huffman->ac = huffman->dc + NUM_HUFF_TBLS;
    *by_pairs = 1;
    for (int number = 0; number < NUM_HUFF_TBLS; number++) {
        int is_for_dc = 0, is_for_ac = 0;
        for (int i = 0; i < info->comps_in_scan; i++) {
            is_for_dc |= info->cur_comp_info[i]->dc_tbl_no == number;
            is_for_ac |= info->cur_comp_info[i]->ac_tbl_no == number;
        }
        if (is_for_dc && !huffman_table_make(huffman->dc + number, info->dc_huff_tbl_ptrs[number], 1))
            return 0;
        HuffmanTable *ac = huffman->ac + number;
        int how = is_for_ac ? huffman_table_make(ac, info->ac_huff_tbl_ptrs[number], 0) : 0;
        if (is_for_ac && !how)
            return 0;
        if (is_for_ac && !ac->has_pairs && (is_large || how == TABLE_KEPT))
            huffman_table_make_pairs(ac);
        *by_pairs &= !is_for_ac || ac->has_pairs;
    }
    return 1;
}

static int may_use_bmi2(void)
{
#if HAS_AVX2_CODE
    return feedrate_own_codes != 2 && __builtin_cpu_supports("bmi2");
#else
    return 0;
#endif
}

static UnitDecoder *unit_decoder(int by_pairs)
{
#if HAS_AVX2_CODE
    if (by_pairs && may_use_bmi2())
        return unit_by_pairs_bmi2;
#endif
    return by_pairs ? unit_by_pairs : unit_by_codes;
}

int huffman_take_over(
    struct jpeg_decompress_struct *info,
    Huffman *huffman,
    JDIMENSION left,
    JDIMENSION width,
    const uint8_t *seek,
    size_t seek_bytes)
{
    int by_pairs;
    if (!feedrate_own_codes || !is_one_baseline_scan(info) ||
        !make_tables(info, huffman, info->src->bytes_in_buffer >= LARGE_BYTES, &by_pairs))
        return 0;
    huffman->column = huffman->row = 0;
    huffman->first_column = left / unit_width(info);
    huffman->last_column = (left + width - 1) / unit_width(info);
    huffman->until_restart = info->restart_interval;
    huffman->next_restart = 0;
    memset(huffman->last_dc, 0, sizeof huffman->last_dc);
    huffman->decode_unit = unit_decoder(by_pairs);
    memset(&huffman->seek, 0, sizeof huffman->seek);
    if (seek && seek_points_use(info, seek, seek_bytes, &huffman->seek)) {
        huffman->decode_stretches = stretch_decoder(by_pairs, may_use_bmi2());
        huffman->rows_ahead = 0;
        info->entropy->decode_mcu = seeking_unit;
    } else {
        take_segment(info, huffman);
        info->entropy->decode_mcu = huffman->decode_unit;
    }
    __atomic_fetch_add(&feedrate_files_taken_over, 1, __ATOMIC_RELAXED);
    return 1;
}

void huffman_free(Huffman *huffman)
{
    buffer_free(&huffman->bytes);
    buffer_free(&huffman->ahead);
    for (int i = 0; i < MOST_STRETCHES; i++)
        buffer_free(&huffman->stretch_bytes[i]);
    free(huffman->dc);
}
