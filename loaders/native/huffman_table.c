/* Tables for huffman.c: what the next bits stand for. Source: ITU-T T.81, annex C and F.2.2. */
#include <stdio.h>
#include <string.h>

#include <jpeglib.h>

#include "huffman.h"

enum { LONGEST = 16, MOST_VALUE_BITS = 15, MOST_PAIR_VALUE_BITS = 7, NUM_SYMBOLS = 256 };

static Code code_for(int is_dc, unsigned symbol, unsigned length)
{
    unsigned size = is_dc ? symbol : symbol & 15, run = is_dc ? 0 : symbol >> 4;
    unsigned on = size || is_dc ? run : (run == 15 ? 16 : DCTSIZE2);
    return length | (length + size) << 5 | on << 10 | size << 17;
}

int huffman_table_make(HuffmanTable *table, const JHUFF_TBL *source, int is_dc)
{
    if (table->is_dc == is_dc && memcmp(table->source.bits, source->bits, sizeof source->bits) == 0 &&
        memcmp(table->source.huffval, source->huffval, sizeof source->huffval) == 0)
        return TABLE_KEPT;
    table->is_dc = -1;
    table->has_pairs = 0;
    memset(table->codes, 0, sizeof table->codes);
    int code = 0, place = 0;
    for (int length = 1; length <= LONGEST; length++, code <<= 1) {
        table->offset[length] = place - code;
        for (int i = 0; i < source->bits[length]; i++, code++, place++) {
            if (place >= NUM_SYMBOLS || code >= 1 << length || (is_dc && source->huffval[place] > MOST_VALUE_BITS))
                return 0;
            Code made = code_for(is_dc, source->huffval[place], (unsigned)length);
            if (length <= CODE_LOOKUP)
                for (int bits = code << (CODE_LOOKUP - length); bits < (code + 1) << (CODE_LOOKUP - length); bits++)
                    table->codes[bits] = made;
        }
        table->end[length] = code << (LONGEST - length);
    }
    table->source = *source;
    table->is_dc = is_dc;
    return TABLE_MADE;
}

Code huffman_table_find(const HuffmanTable *table, uint64_t bits)
{
    int next = (int)(bits >> (64 - LONGEST));
    for (int length = CODE_LOOKUP + 1; length <= LONGEST; length++)
        if (next < table->end[length]) {
            int place = (next >> (LONGEST - length)) + table->offset[length];
            if (place < 0 || place >= NUM_SYMBOLS)
                return 0;
            return code_for(table->is_dc, table->source.huffval[place], (unsigned)length);
        }
    return 0;
}

static Code look_up(const HuffmanTable *table, uint64_t bits)
{
    Code code = table->codes[bits >> (64 - CODE_LOOKUP)];
    return code ? code : huffman_table_find(table, bits);
}

static int fits(Code code, uint32_t taken)
{
    return code && taken + all_bits(code) <= PAIR_LOOKUP && value_bits(code) <= MOST_PAIR_VALUE_BITS;
}

static Pair pair_for(const HuffmanTable *table, uint64_t bits)
{
    Code code = look_up(table, bits);
    uint32_t taken = 0, place;
    if (!fits(code, taken) || (!value_bits(code) && advance(code) != DCTSIZE2))
        return NO_PAIR;
    if (!value_bits(code))
        return all_bits(code) | PAIR_ENDS;
    Pair pair = (uint32_t)advance(code) << 4 | (uint32_t)(value_of(bits << code_bits(code), value_bits(code)) & 255) << 16;
    place = (uint32_t)advance(code) + 1;
    taken = all_bits(code);
    code = look_up(table, bits << taken);
    if (fits(code, taken) && value_bits(code)) {
        int value = value_of(bits << taken << code_bits(code), value_bits(code));
        pair |= PAIR_HAS_SECOND | (uint32_t)(value & 255) << 24;
        place += (uint32_t)advance(code);
        taken += all_bits(code);
        code = look_up(table, bits << taken);
    }
    if (fits(code, taken) && advance(code) == DCTSIZE2) {
        pair |= PAIR_ENDS;
        taken += all_bits(code);
    }
    return pair | place << 8 | taken;
}

void huffman_table_make_pairs(HuffmanTable *table)
{
    for (uint64_t bits = 0; bits < 1 << PAIR_LOOKUP; bits++)
        table->pairs[bits] = pair_for(table, bits << (64 - PAIR_LOOKUP));
    table->has_pairs = 1;
}
