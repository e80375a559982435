/* Shrinking as OpenCV's INTER_AREA does: every output pixel is the mean of the source pixels under it, in float32.
 *
 * Source rows are first resized horizontally, each once, then weighted and added up. Products are added in the order
 * of the source pixels and never fused, so the bits are OpenCV's. */
#include "area.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#if HAS_AVX2_CODE
#include <immintrin.h>
#endif

enum { MOST_ROWS = 64 }; /* of the source under one of the output that are weighted with vector instructions */

static void weigh_rows_plain(const float *const *rows, const float *weights, int count, int num_values, uint8_t *out)
{
    for (int v = 0; v < num_values; v++) {
        float sum = rows[0][v] * weights[0];
        for (int t = 1; t < count; t++)
            sum += rows[t][v] * weights[t];
        long value = lrintf(sum); /* half to even */
        out[v] = value < 0 ? 0 : value > 255 ? 255 : (uint8_t)value;
    }
}

#if HAS_AVX2_CODE

AVX2 static void weigh_rows_avx2(
    const float *const *rows, const float *weights, int count, int num_values, uint8_t *out)
{
    __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    int v = 0;
    for (; v + 32 <= num_values; v += 32) {
        __m256 weight = _mm256_set1_ps(weights[0]);
        __m256 a = _mm256_mul_ps(_mm256_loadu_ps(rows[0] + v), weight);
        __m256 b = _mm256_mul_ps(_mm256_loadu_ps(rows[0] + v + 8), weight);
        __m256 c = _mm256_mul_ps(_mm256_loadu_ps(rows[0] + v + 16), weight);
        __m256 d = _mm256_mul_ps(_mm256_loadu_ps(rows[0] + v + 24), weight);
        for (int t = 1; t < count; t++) {
            weight = _mm256_set1_ps(weights[t]);
            a = _mm256_add_ps(a, _mm256_mul_ps(_mm256_loadu_ps(rows[t] + v), weight));
            b = _mm256_add_ps(b, _mm256_mul_ps(_mm256_loadu_ps(rows[t] + v + 8), weight));
            c = _mm256_add_ps(c, _mm256_mul_ps(_mm256_loadu_ps(rows[t] + v + 16), weight));
            d = _mm256_add_ps(d, _mm256_mul_ps(_mm256_loadu_ps(rows[t] + v + 24), weight));
        }
        __m256i ab = _mm256_packs_epi32(_mm256_cvtps_epi32(a), _mm256_cvtps_epi32(b));
        __m256i cd = _mm256_packs_epi32(_mm256_cvtps_epi32(c), _mm256_cvtps_epi32(d));
        __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(ab, cd), in_order);
        _mm256_storeu_si256((__m256i *)(out + v), bytes);
    }
    const float *rest[MOST_ROWS];
    if (v < num_values) {
        for (int t = 0; t < count; t++)
            rest[t] = rows[t] + v;
        weigh_rows_plain(rest, weights, count, num_values - v, out + v);
    }
}

#endif

/* Whole factors: OpenCV adds integers, and rounds halves up for 2×2 and to even otherwise. */
static void resize_whole(Pixels source, int size, int flip, uint8_t *out)
{
    int across = source.width / size, down = source.height / size;
    float share = 1.f / (across * down);
    for (int y = 0; y < size; y++)
        for (int i = 0; i < size; i++, out += 3) {
            const uint8_t *corner = source.first + (ptrdiff_t)y * down * source.stride;
            corner += 3 * across * (flip ? size - 1 - i : i);
            for (int channel = 0; channel < 3; channel++) {
                int sum = 0;
                for (int dy = 0; dy < down; dy++)
                    for (int dx = 0; dx < across; dx++)
                        sum += corner[dy * source.stride + 3 * dx + channel];
                out[channel] = across == 2 && down == 2 ? (uint8_t)((sum + 2) >> 2) : (uint8_t)lrintf(sum * share);
            }
        }
}

/* As OpenCV asks it: the quotient of quotients is not always the whole number it should be, as for 107 pixels to 1. */
static int is_whole(int source, int size)
{
    double scale = 1.0 / ((double)size / source);
    return scale == (double)(int)(scale + 0.5);
}

int resize_area(Resizer *resizer, Pixels source, int flip, uint8_t *out)
{
    int size = resizer->size, num_values = 3 * size;
    if (source.width < size || source.height < size)
        return resize_linear(resizer, source, flip, out);
    if (is_whole(source.width, size) && is_whole(source.height, size)) {
        resize_whole(source, size, flip, out);
        return 1;
    }
    Taps across, down;
    if (!make_taps(&across, &resizer->columns, source.width, size) ||
        !make_taps(&down, &resizer->rows, source.height, size))
        return 0;
    /* a ring of source rows, resized horizontally; as long as the most that one output row needs */
    int ring = down.num_taps, room = (num_values + 7) / 8 * 8 + SUMS_SLACK;
    float *sums = buffer_reserve(&resizer->sums, (sizeof(float) * (size_t)room + sizeof(float *)) * (size_t)ring);
    if (!sums)
        return 0;
    const float **needed = (const float **)(sums + (size_t)ring * (size_t)room);
    Columns columns;
    columns_make(&columns, &across, resizer, flip, 3 * source.width);
    int done = 0; /* source rows before this one have been resized */
    for (int y = 0; y < size; y++, out += num_values) {
        int first = down.first[y], count = down.count[y];
        for (int r = first > done ? first : done; r < first + count; r++, done = r)
            columns_sum(&columns, source.first + r * source.stride, sums + (size_t)(r % ring) * room);
        for (int t = 0; t < count; t++)
            needed[t] = sums + (size_t)((first + t) % ring) * room;
        const float *weights = down.weights + (size_t)y * down.num_taps;
#if HAS_AVX2_CODE
        if (resizer->use_avx2 && count <= MOST_ROWS)
            weigh_rows_avx2(needed, weights, count, num_values, out);
        else
#endif
            weigh_rows_plain(needed, weights, count, num_values, out);
    }
    return 1;
}
