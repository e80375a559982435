/* Resizing as Pillow's BILINEAR and BICUBIC do from version 13 on: antialiased, in integers, with weights of 22 bits, first
 * in one direction, rounded to 8 bits, then in the other. Sums of integers have no order, so vectors may add them in any. */
#include "pillow_taps.h"

#include <string.h>

#if HAS_AVX2_CODE
#include <immintrin.h>
#endif

/* A weight is HIGH × its upper part + its lower part, which both fit 16 bits; the upper part has the weight's sign. */
enum { HALF = 1 << (PRECISION - 1), LOW_BITS = 11, LOW = (1 << LOW_BITS) - 1, SLACK = 32 };

static uint8_t rounded(int32_t sum)
{
    sum >>= PRECISION;
    return sum > 255 ? 255 : sum < 0 ? 0 : (uint8_t)sum;
}

static void sum_columns_plain(const Taps *taps, int size, int flip, const uint8_t *row, uint8_t *out)
{
    for (int i = 0; i < size; i++, out += 3) {
        int column = flip ? size - 1 - i : i;
        const uint8_t *pixel = row + 3 * taps->first[column];
        const int32_t *weights = taps->weights + (size_t)column * taps->num_taps;
        int32_t red = HALF, green = HALF, blue = HALF;
        for (int t = 0; t < taps->count[column]; t++, pixel += 3) {
            red += pixel[0] * weights[t];
            green += pixel[1] * weights[t];
            blue += pixel[2] * weights[t];
        }
        out[0] = rounded(red), out[1] = rounded(green), out[2] = rounded(blue);
    }
}

static void sum_lines_plain(
    const uint8_t *const *rows, const int32_t *weights, int count, int num_values, uint8_t *out)
{
    for (int v = 0; v < num_values; v++) {
        int32_t sum = HALF;
        for (int t = 0; t < count; t++)
            sum += rows[t][v] * weights[t];
        out[v] = rounded(sum);
    }
}

#if HAS_AVX2_CODE

enum { TAPS_A_LOAD = 4 }; /* of the five pixels in 16 bytes, since taps are taken in pairs */

/* The columns for vectors of two pixels, each in four lanes of which the last is idle. */
typedef struct {
    int num_columns, num_pairs; /* of output pixels, an even number; of taps */
    int *offsets;               /* [loads][num_columns], bytes into the row */
    __m128i *shuffles;          /* [loads][num_columns]: the first pair of a load */
    uint32_t *weights;          /* [num_pairs][num_columns / 2][2 parts][8 lanes]: of two taps each */
} Columns;

static uint32_t upper_parts(const int32_t *weights)
{
    return (uint16_t)(weights[0] >> LOW_BITS) | (uint32_t)(weights[1] >> LOW_BITS) << 16;
}

static uint32_t lower_parts(const int32_t *weights)
{
    return (uint32_t)(weights[0] & LOW) | (uint32_t)(weights[1] & LOW) << 16;
}

/* Bytes of taps that a pixel does not have are some bytes of the row, with weight 0. */
static int arrange(Columns *columns, Buffer *buffer, const Taps *taps, int size, int flip, int row_bytes)
{
    if (row_bytes < 16)
        return 0;
    columns->num_columns = (size + 1) / 2 * 2;
    columns->num_pairs = (taps->most + 1) / 2;
    size_t n = (size_t)columns->num_columns, pairs = (size_t)columns->num_pairs, loads = (pairs + 1) / 2;
    char *memory = buffer_reserve(buffer, n * (32 * pairs + 20 * loads));
    if (!memory)
        return 0;
    columns->weights = (uint32_t *)memory;
    columns->shuffles = (__m128i *)(memory + n * 32 * pairs);
    columns->offsets = (int *)(columns->shuffles + n * loads);
    for (size_t i = 0; i < n; i++) {
        int within = (int)i < size ? (int)i : size - 1, column = flip ? size - 1 - within : within;
        const int32_t *weights = taps->weights + (size_t)column * taps->num_taps;
        for (size_t pair = 0; pair < pairs; pair++) {
            uint32_t *target = columns->weights + 8 * (pair * n + i / 2 * 2) + 4 * (i % 2);
            uint32_t high = upper_parts(weights + 2 * pair), low = lower_parts(weights + 2 * pair);
            for (int lane = 0; lane < 4; lane++)
                target[lane] = high, target[lane + 8] = low;
        }
        for (size_t load = 0; load < loads; load++) {
            int first = 3 * (taps->first[column] + TAPS_A_LOAD * (int)load);
            int begin = first < row_bytes - 16 ? first : row_bytes - 16, skip = first - begin;
            uint32_t *shuffle = (uint32_t *)(columns->shuffles + load * n + i);
            columns->offsets[load * n + i] = begin;
            for (int lane = 0; lane < 4; lane++) {
                int near = skip + lane, far = near + 3;
                shuffle[lane] = 0x80008000u | (uint32_t)(far < 16 ? far : 15) << 16 | (uint32_t)(near < 16 ? near : 15);
            }
        }
    }
    return 1;
}

AVX2 static inline __m256i finished(__m256i high, __m256i low)
{
    return _mm256_srai_epi32(_mm256_add_epi32(_mm256_slli_epi32(high, LOW_BITS), low), PRECISION);
}

/* Writes up to SLACK bytes more than the row has. */
AVX2 static inline __attribute__((always_inline)) void sum_pairs(
    int num_pairs, const Columns *columns, const uint8_t *row, uint8_t *out)
{
    const __m256i next_pair = _mm256_set1_epi32(0x00060006);
    int n = columns->num_columns;
    for (int i = 0; i < n; i += 2, out += 6) {
        const int *offsets = columns->offsets + i;
        const __m128i *shuffles = columns->shuffles + i;
        const __m256i *weights = (const __m256i *)(columns->weights + 8 * (size_t)i);
        __m256i bytes = _mm256_setzero_si256(), shuffle = bytes, high = bytes, low = _mm256_set1_epi32(HALF);
        for (int pair = 0; pair < num_pairs; pair++, weights += n) {
            if (pair % 2 == 0) {
                __m128i a = _mm_loadu_si128((const __m128i *)(row + offsets[0]));
                __m128i b = _mm_loadu_si128((const __m128i *)(row + offsets[1]));
                bytes = _mm256_inserti128_si256(_mm256_castsi128_si256(a), b, 1);
                shuffle = _mm256_load_si256((const __m256i *)shuffles);
                offsets += n;
                shuffles += n;
            }
            __m256i picked = _mm256_shuffle_epi8(bytes, shuffle);
            high = _mm256_add_epi32(high, _mm256_madd_epi16(picked, weights[0]));
            low = _mm256_add_epi32(low, _mm256_madd_epi16(picked, weights[1]));
            shuffle = _mm256_add_epi8(shuffle, next_pair);
        }
        __m256i sums = finished(high, low);
        sums = _mm256_packs_epi32(sums, sums);
        sums = _mm256_packus_epi16(sums, sums);
        int left = _mm256_extract_epi32(sums, 0), right = _mm256_extract_epi32(sums, 4);
        memcpy(out, &left, 4); /* each idle lane is written over by the next pixel */
        memcpy(out + 3, &right, 4);
    }
}

AVX2 static void sum_columns_avx2(const Columns *columns, const uint8_t *row, uint8_t *out)
{
    if (columns->num_pairs == 1) /* constants, so that the inner loop disappears */
        sum_pairs(1, columns, row, out);
    else if (columns->num_pairs == 2)
        sum_pairs(2, columns, row, out);
    else
        sum_pairs(columns->num_pairs, columns, row, out);
}

/* Rows are taken in pairs: of an odd count the last has a successor, any, with weight 0. */
AVX2 static void sum_lines_avx2(
    const uint8_t *const *rows, const int32_t *weights, int count, int num_values, uint8_t *out)
{
    const __m256i zero = _mm256_setzero_si256(), half = _mm256_set1_epi32(HALF);
    for (int v = 0; v < num_values; v += 32) {
        v = v > num_values - 32 ? num_values - 32 : v; /* the last values once more, rather than one by one */
        __m256i high[4] = {zero, zero, zero, zero}, low[4] = {half, half, half, half};
        for (int t = 0; t < count; t += 2) {
            __m256i upper = _mm256_set1_epi32((int)upper_parts(weights + t));
            __m256i lower = _mm256_set1_epi32((int)lower_parts(weights + t));
            __m256i a = _mm256_loadu_si256((const __m256i *)(rows[t] + v));
            __m256i b = _mm256_loadu_si256((const __m256i *)(rows[t + 1] + v));
            __m256i ab[2] = {_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b)};
            for (int part = 0; part < 4; part++) {
                __m256i pairs = ab[part / 2];
                pairs = part % 2 ? _mm256_unpackhi_epi8(pairs, zero) : _mm256_unpacklo_epi8(pairs, zero);
                high[part] = _mm256_add_epi32(high[part], _mm256_madd_epi16(pairs, upper));
                low[part] = _mm256_add_epi32(low[part], _mm256_madd_epi16(pairs, lower));
            }
        }
        __m256i left = _mm256_packs_epi32(finished(high[0], low[0]), finished(high[1], low[1]));
        __m256i right = _mm256_packs_epi32(finished(high[2], low[2]), finished(high[3], low[3]));
        _mm256_storeu_si256((__m256i *)(out + v), _mm256_packus_epi16(left, right));
    }
}

#else

typedef int Columns;

#endif

static void sum_lines(
    int use_avx2, const uint8_t *const *rows, const int32_t *weights, int count, int num_values, uint8_t *out)
{
#if HAS_AVX2_CODE
    if (use_avx2 && num_values >= 32) {
        sum_lines_avx2(rows, weights, count, num_values, out);
        return;
    }
#endif
    (void)use_avx2;
    sum_lines_plain(rows, weights, count, num_values, out);
}

static void sum_columns(
    const Columns *columns, const Taps *taps, int size, int flip, const uint8_t *row, uint8_t *out)
{
#if HAS_AVX2_CODE
    if (columns) {
        sum_columns_avx2(columns, row, out);
        return;
    }
#endif
    (void)columns;
    sum_columns_plain(taps, size, flip, row, out);
}

int resize_pillow(Resizer *resizer, Filter filter, Pixels source, int flip, uint8_t *out)
{
    int size = resizer->size, num_values = 3 * size, row_bytes = 3 * source.width;
    Taps across, down;
    if (!taps_weigh(&across, &resizer->columns, filter, source.width, size) ||
        !taps_weigh(&down, &resizer->rows, filter, source.height, size))
        return 0;
    /* Pillow begins with the height where it shrinks, and by far more pixels than the width */
    int lines_first = source.height > size && source.height - size > 2 * (source.width - size);
    /* a ring of rows that were resized horizontally, as long as the most that one output row needs, and one that was
     * resized vertically */
    size_t ring = (size_t)down.most, room = (size_t)num_values + SLACK, pointers = (ring + 1) * sizeof(uint8_t *);
    const uint8_t **needed = buffer_reserve(&resizer->sums, pointers + ring * room + (size_t)row_bytes);
    if (!needed)
        return 0;
    uint8_t *resized = (uint8_t *)needed + pointers, *mixed = resized + ring * room;
    const Columns *arranged = NULL;
#if HAS_AVX2_CODE
    Columns columns;
    if (resizer->use_avx2 && arrange(&columns, &resizer->groups, &across, size, flip, row_bytes))
        arranged = &columns;
#endif
    int done = 0; /* source rows before this one have been resized */
    for (int y = 0; y < size; y++, out += num_values) {
        const int32_t *weights = down.weights + (size_t)y * (size_t)down.num_taps;
        int first = down.first[y], count = down.count[y];
        if (lines_first) {
            for (int t = 0; t <= count; t++)
                needed[t] = source.first + (first + (t < count ? t : 0)) * source.stride;
            sum_lines(resizer->use_avx2, needed, weights, count, row_bytes, mixed);
            sum_columns(arranged, &across, size, flip, mixed, resized);
            memcpy(out, resized, (size_t)num_values);
            continue;
        }
        for (int r = first > done ? first : done; r < first + count; r++, done = r)
            sum_columns(
                arranged, &across, size, flip, source.first + r * source.stride, resized + (size_t)r % ring * room);
        for (int t = 0; t <= count; t++)
            needed[t] = resized + (size_t)(first + (t < count ? t : 0)) % ring * room;
        sum_lines(resizer->use_avx2, needed, weights, count, num_values, out);
    }
    return 1;
}
