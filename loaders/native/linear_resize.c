/* Growing as OpenCV's INTER_AREA does: where a side grows it interpolates between two source pixels, in integers, with
 * weights of 11 bits of which only those near the border of two source pixels are mixed. */
#include "feedrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#if HAS_AVX2_CODE
#include <immintrin.h>
#endif

enum { ONE = 2048 };

/* Output pixel i is `near` × weights[2 i] + `far` × weights[2 i + 1], in ONEths. */
typedef struct {
    int *near, *far;
    int16_t *weights;
} Pairs;

static int make_pairs(Pairs *pairs, Buffer *buffer, int source, int size)
{
    char *memory = buffer_reserve(buffer, (size_t)size * 12);
    if (!memory)
        return 0;
    pairs->near = (int *)memory;
    pairs->far = pairs->near + size;
    pairs->weights = (int16_t *)(pairs->far + size);
    double inverse = (double)size / source, scale = 1.0 / inverse;
    for (int i = 0; i < size; i++) {
        int near = (int)(i * scale); /* positive: the same as its floor */
        float part = (float)((i + 1) - (near + 1) * inverse);
        part = part <= 0 ? 0.f : part - (int)part;
        if (near >= source - 1) {
            near = source - 1;
            part = 0;
        }
        pairs->near[i] = near;
        pairs->far[i] = near < source - 1 ? near + 1 : near;
        pairs->weights[2 * i] = (int16_t)lrintf((1.f - part) * ONE);
        pairs->weights[2 * i + 1] = (int16_t)lrintf(part * ONE);
    }
    return 1;
}

/* Horizontal sums lose their lowest 4 bits at once, as OpenCV's vertical pass begins: they then fit 16 bits. */
static void mix_columns_plain(const Pairs *pairs, int size, int flip, const uint8_t *row, int16_t *sums)
{
    for (int i = 0; i < size; i++, sums += 3) {
        int column = flip ? size - 1 - i : i;
        const uint8_t *near = row + 3 * pairs->near[column], *far = row + 3 * pairs->far[column];
        const int16_t *weights = pairs->weights + 2 * column;
        for (int channel = 0; channel < 3; channel++)
            sums[channel] = (int16_t)((near[channel] * weights[0] + far[channel] * weights[1]) >> 4);
    }
}

static void mix_rows_plain(
    const int16_t *near, const int16_t *far, const int16_t *weights, int num_values, uint8_t *out)
{
    for (int v = 0; v < num_values; v++) {
        int value = (((near[v] * weights[0]) >> 16) + ((far[v] * weights[1]) >> 16) + 2) >> 2;
        out[v] = value > 255 ? 255 : (uint8_t)value;
    }
}

#if HAS_AVX2_CODE

/* Sixteen output values from four loads of 16 bytes, one for each four values ("quad"). */
typedef struct {
    int num_groups;
    int *offsets;      /* [num_groups][4], bytes into the row */
    int8_t *shuffles;  /* [num_groups][2][32]: quads 0 and 2, then 1 and 3, so that packing puts them in order */
    int16_t *weights;  /* [num_groups][2][16] */
} Groups;

/* 0 if some four values need more than 16 bytes, or there is no memory. */
static int make_groups(Groups *groups, Buffer *buffer, const Pairs *pairs, int size, int flip, int row_bytes)
{
    int num_values = 3 * size;
    if (row_bytes < 16)
        return 0;
    groups->num_groups = (num_values + 15) / 16;
    size_t lanes = (size_t)groups->num_groups * 64;
    char *memory = buffer_reserve(buffer, 2 * lanes + (size_t)groups->num_groups * 16);
    if (!memory)
        return 0;
    groups->shuffles = (int8_t *)memory;
    groups->weights = (int16_t *)(memory + lanes);
    groups->offsets = (int *)(memory + 2 * lanes);
    for (int quad = 0; quad < 4 * groups->num_groups; quad++) {
        int left = 4 * quad / 3, right = (4 * quad + 3) / 3;
        left = left < size ? left : size - 1, right = right < size ? right : size - 1;
        int low = flip ? size - 1 - right : left, high = flip ? size - 1 - left : right;
        int begin = 3 * pairs->near[low], end = 3 * pairs->far[high] + 3;
        if (end - begin > 16)
            return 0;
        if (begin > row_bytes - 16)
            begin = row_bytes - 16;
        groups->offsets[quad] = begin;
        size_t place = (size_t)(quad / 4) * 64 + 32 * (quad % 2) + 16 * (quad % 4 / 2);
        uint32_t *shuffles = (uint32_t *)(groups->shuffles + place);
        uint32_t *weights = (uint32_t *)((char *)groups->weights + place);
        int i = 4 * quad / 3, channel = 4 * quad % 3;
        for (int lane = 0; lane < 4; lane++) {
            int within = i < size ? i : size - 1, column = flip ? size - 1 - within : within;
            uint32_t near = (uint32_t)(3 * pairs->near[column] + channel - begin);
            uint32_t far = (uint32_t)(3 * pairs->far[column] + channel - begin);
            shuffles[lane] = 0x80008000u | far << 16 | near;
            memcpy(weights + lane, pairs->weights + 2 * column, 4);
            if (++channel == 3)
                channel = 0, i++;
        }
    }
    return 1;
}

AVX2 static inline __m256i two_loads(const uint8_t *row, int low, int high)
{
    __m128i a = _mm_loadu_si128((const __m128i *)(row + low)), b = _mm_loadu_si128((const __m128i *)(row + high));
    return _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
}

AVX2 static void mix_columns_grouped(const Groups *groups, const uint8_t *row, int16_t *sums)
{
    const __m256i *shuffles = (const __m256i *)groups->shuffles, *weights = (const __m256i *)groups->weights;
    const int *offsets = groups->offsets;
    for (int g = 0; g < groups->num_groups; g++, shuffles += 2, weights += 2, offsets += 4, sums += 16) {
        __m256i even = _mm256_shuffle_epi8(two_loads(row, offsets[0], offsets[2]), shuffles[0]);
        __m256i odd = _mm256_shuffle_epi8(two_loads(row, offsets[1], offsets[3]), shuffles[1]);
        even = _mm256_srli_epi32(_mm256_madd_epi16(even, weights[0]), 4);
        odd = _mm256_srli_epi32(_mm256_madd_epi16(odd, weights[1]), 4);
        _mm256_storeu_si256((__m256i *)sums, _mm256_packs_epi32(even, odd));
    }
}

AVX2 static void mix_rows_avx2(
    const int16_t *near, const int16_t *far, const int16_t *weights, int num_values, uint8_t *out)
{
    __m256i a = _mm256_set1_epi16(weights[0]), b = _mm256_set1_epi16(weights[1]), half = _mm256_set1_epi16(2);
    int v = 0;
    for (; v + 32 <= num_values; v += 32) {
        __m256i mixed[2];
        for (int part = 0; part < 2; part++) {
            __m256i x = _mm256_mulhi_epi16(_mm256_loadu_si256((const __m256i *)(near + v + 16 * part)), a);
            __m256i y = _mm256_mulhi_epi16(_mm256_loadu_si256((const __m256i *)(far + v + 16 * part)), b);
            mixed[part] = _mm256_srai_epi16(_mm256_add_epi16(_mm256_add_epi16(x, y), half), 2);
        }
        __m256i bytes = _mm256_permute4x64_epi64(_mm256_packus_epi16(mixed[0], mixed[1]), 0xD8);
        _mm256_storeu_si256((__m256i *)(out + v), bytes);
    }
    mix_rows_plain(near + v, far + v, weights, num_values - v, out + v);
}

#endif

int resize_linear(Resizer *resizer, Pixels source, int flip, uint8_t *out)
{
    int size = resizer->size, num_values = 3 * size, room = (num_values + 15) / 16 * 16;
    Pairs columns, rows;
    if (!make_pairs(&columns, &resizer->columns, source.width, size) ||
        !make_pairs(&rows, &resizer->rows, source.height, size))
        return 0;
    int16_t *sums = buffer_reserve(&resizer->sums, sizeof(int16_t) * 2 * (size_t)room); /* source row r in half r % 2 */
    if (!sums)
        return 0;
#if HAS_AVX2_CODE
    Groups groups;
    int grouped = resizer->use_avx2 && make_groups(&groups, &resizer->groups, &columns, size, flip, 3 * source.width);
#endif
    int done = 0; /* source rows before this one have been resized, or are not needed */
    for (int y = 0; y < size; y++, out += num_values) {
        int near = rows.near[y], far = rows.far[y];
        for (int r = near > done ? near : done; r <= far; r++, done = r) {
            const uint8_t *row = source.first + r * source.stride;
            int16_t *target = sums + (r % 2) * room;
#if HAS_AVX2_CODE
            if (grouped)
                mix_columns_grouped(&groups, row, target);
            else
#endif
                mix_columns_plain(&columns, size, flip, row, target);
        }
        const int16_t *upper = sums + (near % 2) * room, *lower = sums + (far % 2) * room;
#if HAS_AVX2_CODE
        if (resizer->use_avx2)
            mix_rows_avx2(upper, lower, rows.weights + 2 * y, num_values, out);
        else
#endif
            mix_rows_plain(upper, lower, rows.weights + 2 * y, num_values, out);
    }
    return 1;
}
