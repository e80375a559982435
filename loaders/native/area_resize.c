/* Shrinking as OpenCV's INTER_AREA does: every output pixel is the mean of the source pixels under it, in float32.
 *
 * Source rows are first resized horizontally, each once, then weighted and added up. Products are added in the order
 * of the source pixels and never fused, so the bits are OpenCV's. */
#include "feedrate.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#if HAS_AVX2_CODE
#include <immintrin.h>
#endif

/* Output pixel i is the sum of `count` source pixels from `first` on, with weights [i * num_taps ...]. */
typedef struct {
    int num_taps; /* room for each pixel's weights; those beyond its count are 0 */
    int most;     /* the largest count */
    int *first, *count;
    float *weights;
} Taps;

/* OpenCV's weights for shrinking `source` pixels to `size`. 0 if there is no memory. */
static int make_taps(Taps *taps, Buffer *buffer, int source, int size)
{
    double scale = 1.0 / ((double)size / source);
    taps->num_taps = (int)scale + 3;
    char *memory = buffer_reserve(buffer, (size_t)size * (8 + 4 * (size_t)taps->num_taps));
    if (!memory)
        return 0;
    taps->weights = (float *)memory;
    taps->first = (int *)(taps->weights + (size_t)size * taps->num_taps);
    taps->count = taps->first + size;
    taps->most = 0;
    for (int i = 0; i < size; i++) {
        double begin = i * scale, end = begin + scale, cell = scale < source - begin ? scale : source - begin;
        int inner_end = (int)end; /* positive: the same as its floor */
        if (inner_end > source - 1)
            inner_end = source - 1;
        int inner = (int)begin + (begin > (int)begin); /* its ceiling */
        if (inner > inner_end)
            inner = inner_end;
        float *weights = taps->weights + (size_t)i * taps->num_taps;
        int n = 0;
        taps->first[i] = inner;
        if (inner - begin > 1e-3) {
            taps->first[i] = inner - 1;
            weights[n++] = (float)((inner - begin) / cell);
        }
        float whole = (float)(1.0 / cell);
        for (int x = inner; x < inner_end; x++)
            weights[n++] = whole;
        if (end - inner_end > 1e-3) {
            double part = end - inner_end < 1.0 ? end - inner_end : 1.0;
            weights[n++] = (float)((part < cell ? part : cell) / cell);
        }
        taps->count[i] = n;
        if (n > taps->most)
            taps->most = n;
        for (; n < taps->num_taps; n++)
            weights[n] = 0;
    }
    return taps->most > 0;
}

static void sum_columns_plain(const Taps *taps, int size, int flip, const uint8_t *row, float *sums)
{
    for (int i = 0; i < size; i++, sums += 3) {
        int column = flip ? size - 1 - i : i;
        const uint8_t *pixel = row + 3 * taps->first[column];
        const float *weights = taps->weights + (size_t)column * taps->num_taps;
        float red = 0, green = 0, blue = 0;
        for (int t = 0; t < taps->count[column]; t++, pixel += 3) {
            red += pixel[0] * weights[t];
            green += pixel[1] * weights[t];
            blue += pixel[2] * weights[t];
        }
        sums[0] = red, sums[1] = green, sums[2] = blue;
    }
}

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

/* Eight output values, made from two loads of 16 bytes: of the first four values and of the other four. A shuffle brings
 * the first tap's bytes into 32-bit lanes; for each further tap it is moved on by a pixel. Where a pixel has fewer taps,
 * it picks some byte, with weight 0. */
typedef struct {
    int num_taps, num_values; /* values: a multiple of 8 */
    int *offsets;             /* [num_values / 4], bytes into the row */
    uint32_t *shuffles;       /* [num_values] */
    float *weights;           /* [num_taps][num_values] */
} Groups;

/* 0 if some four values need more than 16 bytes, or there is no memory. */
static int make_groups(Groups *groups, Buffer *buffer, const Taps *taps, int size, int flip, int row_bytes)
{
    int room = (3 * size + 7) / 8 * 8;
    if (row_bytes < 16 || taps->most > 5)
        return 0;
    char *memory = buffer_reserve(buffer, 4 * (size_t)room * ((size_t)taps->most + 2));
    if (!memory)
        return 0;
    groups->num_taps = taps->most;
    groups->num_values = room;
    groups->weights = (float *)memory;
    groups->shuffles = (uint32_t *)(groups->weights + (size_t)room * taps->most);
    groups->offsets = (int *)(groups->shuffles + room);
    for (int i = 0; i < (room + 2) / 3; i++) {
        int within = i < size ? i : size - 1, column = flip ? size - 1 - within : within;
        for (int v = 3 * i; v < 3 * i + 3 && v < room; v++) {
            groups->shuffles[v] = (uint32_t)(3 * taps->first[column] + v - 3 * i);
            for (int t = 0; t < taps->most; t++)
                groups->weights[t * room + v] = taps->weights[column * taps->num_taps + t];
        }
    }
    for (int quad = 0; quad < room / 4; quad++) {
        int left = 4 * quad / 3, right = (4 * quad + 3) / 3;
        left = left < size ? left : size - 1, right = right < size ? right : size - 1;
        int low = flip ? size - 1 - right : left, high = flip ? size - 1 - left : right;
        int begin = 3 * taps->first[low], end = 3 * (taps->first[high] + taps->count[high]);
        if (end - begin > 16)
            return 0;
        if (begin > row_bytes - 16)
            begin = row_bytes - 16;
        groups->offsets[quad] = begin;
        for (int v = 4 * quad; v < 4 * quad + 4; v++)
            groups->shuffles[v] = 0x80808000u | (groups->shuffles[v] - (uint32_t)begin);
    }
    return 1;
}

AVX2 static inline __attribute__((always_inline)) void sum_columns_of(
    int num_taps, const Groups *groups, const uint8_t *row, float *sums)
{
    const __m256i pixel = _mm256_set1_epi32(3);
    int room = groups->num_values;
    for (int v = 0; v < room; v += 8) {
        __m128i low = _mm_loadu_si128((const __m128i *)(row + groups->offsets[v / 4]));
        __m128i high = _mm_loadu_si128((const __m128i *)(row + groups->offsets[v / 4 + 1]));
        __m256i bytes = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
        __m256i shuffle = _mm256_load_si256((const __m256i *)(groups->shuffles + v));
        __m256 picked = _mm256_cvtepi32_ps(_mm256_shuffle_epi8(bytes, shuffle));
        __m256 sum = _mm256_mul_ps(picked, _mm256_load_ps(groups->weights + v));
        for (int t = 1; t < num_taps; t++) {
            shuffle = _mm256_add_epi32(shuffle, pixel);
            picked = _mm256_cvtepi32_ps(_mm256_shuffle_epi8(bytes, shuffle));
            sum = _mm256_add_ps(sum, _mm256_mul_ps(picked, _mm256_load_ps(groups->weights + t * room + v)));
        }
        _mm256_store_ps(sums + v, sum);
    }
}

AVX2 static void sum_columns_grouped(const Groups *groups, const uint8_t *row, float *sums)
{
    switch (groups->num_taps) { /* constants, so that the inner loop disappears */
    case 2:
        sum_columns_of(2, groups, row, sums);
        break;
    case 3:
        sum_columns_of(3, groups, row, sums);
        break;
    default:
        sum_columns_of(groups->num_taps, groups, row, sums);
    }
}

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
    const float *rest[64];
    if (v < num_values && count <= 64) {
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
    Taps columns, rows;
    if (!make_taps(&columns, &resizer->columns, source.width, size) ||
        !make_taps(&rows, &resizer->rows, source.height, size))
        return 0;
    /* a ring of source rows, resized horizontally; as long as the most that one output row needs */
    int ring = rows.num_taps, room = (num_values + 7) / 8 * 8;
    float *sums = buffer_reserve(&resizer->sums, sizeof(float) * (size_t)ring * room + sizeof(float *) * ring);
    if (!sums)
        return 0;
    const float **needed = (const float **)(sums + (size_t)ring * room);
#if HAS_AVX2_CODE
    Groups groups;
    int grouped = resizer->use_avx2 && make_groups(&groups, &resizer->groups, &columns, size, flip, 3 * source.width);
#endif
    int done = 0; /* source rows before this one have been resized */
    for (int y = 0; y < size; y++, out += num_values) {
        int first = rows.first[y], count = rows.count[y];
        for (int r = first > done ? first : done; r < first + count; r++, done = r) {
            const uint8_t *row = source.first + r * source.stride;
            float *target = sums + (size_t)(r % ring) * room;
#if HAS_AVX2_CODE
            if (grouped)
                sum_columns_grouped(&groups, row, target);
            else
#endif
                sum_columns_plain(&columns, size, flip, row, target);
        }
        for (int t = 0; t < count; t++)
            needed[t] = sums + (size_t)((first + t) % ring) * room;
        const float *weights = rows.weights + (size_t)y * rows.num_taps;
#if HAS_AVX2_CODE
        if (resizer->use_avx2 && count <= 64)
            weigh_rows_avx2(needed, weights, count, num_values, out);
        else
#endif
            weigh_rows_plain(needed, weights, count, num_values, out);
    }
    return 1;
}
