/* The horizontal half of area_resize.c. */
#include "area.h"

#if HAS_AVX2_CODE
#include <immintrin.h>
#endif

int make_taps(Taps *taps, Buffer *buffer, int source, int size)
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

static void sum_plain(const Taps *taps, int size, int flip, const uint8_t *row, float *sums)
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

#if HAS_AVX2_CODE

enum { TAPS_A_LOAD = 5 }; /* whole pixels in 16 bytes */

static int column_of(const Columns *columns, int i)
{
    i = i < columns->size ? i : columns->size - 1;
    return columns->flip ? columns->size - 1 - i : i;
}

/* Whether every 4 consecutive values come from 16 bytes of the source. */
static int values_are_near(const Columns *columns, int num_values)
{
    for (int v = 0; v < num_values; v += 4) {
        int a = column_of(columns, v / 3), b = column_of(columns, (v + 3) / 3);
        int low = a < b ? a : b, high = a < b ? b : a;
        if (3 * (columns->taps->first[high] + columns->taps->count[high] - columns->taps->first[low]) > 16)
            return 0;
    }
    return 1;
}

/* For lanes [4 k, 4 k + 4) of one load: where it reads, and which byte goes where. Bytes of taps that a pixel does not
 * have are some bytes, with weight 0. */
static void arrange_load(const Columns *columns, int load, int k, int row_bytes)
{
    uint32_t *shuffles = columns->shuffles + load * columns->num_lanes + 4 * k;
    int by_value = columns->lanes_a_load == 4, i = by_value ? 4 * k / 3 : k, channel = by_value ? 4 * k % 3 : 0;
    int bytes[4], begin = row_bytes - 16;
    for (int lane = 0; lane < 4; lane++) {
        int first = 3 * (columns->taps->first[column_of(columns, i)] + TAPS_A_LOAD * load);
        begin = first < begin ? first : begin;
        bytes[lane] = first + channel;
        if (++channel == 3)
            channel = 0, i += by_value;
    }
    columns->offsets[load * (columns->num_lanes / 4) + k] = begin;
    for (int lane = 0; lane < 4; lane++)
        shuffles[lane] = 0x80808000u | (uint32_t)(bytes[lane] - begin < 16 ? bytes[lane] - begin : 15);
}

static void arrange(Columns *columns, Buffer *buffer, int row_bytes)
{
    const Taps *taps = columns->taps;
    int num_values = (3 * columns->size + 7) / 8 * 8;
    if (row_bytes < 16)
        return;
    columns->loads = 1;
    if (taps->most <= TAPS_A_LOAD && values_are_near(columns, num_values)) {
        columns->lanes_a_load = 4;
        columns->num_lanes = num_values;
    } else {
        columns->lanes_a_load = 3;
        columns->num_lanes = (columns->size + 1) / 2 * 8;
        columns->loads = (taps->most + TAPS_A_LOAD - 1) / TAPS_A_LOAD;
    }
    size_t lanes = (size_t)columns->num_lanes;
    char *memory = buffer_reserve(buffer, 4 * lanes * (size_t)(taps->most + 2 * columns->loads));
    if (!memory)
        return;
    columns->num_taps = taps->most;
    columns->weights = (float *)memory;
    columns->shuffles = (uint32_t *)(columns->weights + lanes * (size_t)taps->most);
    columns->offsets = (int *)(columns->shuffles + lanes * (size_t)columns->loads);
    int copies = columns->lanes_a_load == 4 ? 3 : 4; /* lanes of one pixel */
    for (int i = 0; i * copies < columns->num_lanes; i++) {
        const float *weights = taps->weights + (size_t)column_of(columns, i) * taps->num_taps;
        for (int t = 0; t < taps->most; t++)
            for (int lane = copies * i; lane < copies * i + copies && lane < columns->num_lanes; lane++)
                columns->weights[(size_t)t * lanes + lane] = weights[t];
    }
    for (int load = 0; load < columns->loads; load++)
        for (int k = 0; k < columns->num_lanes / 4; k++)
            arrange_load(columns, load, k, row_bytes);
}

AVX2 static inline __attribute__((always_inline)) void sum_arranged(
    int num_taps, int by_value, const Columns *columns, const uint8_t *row, float *sums)
{
    const __m256i pixel = _mm256_set1_epi32(3);
    int num_lanes = columns->num_lanes;
    for (int lane = 0; lane < num_lanes; lane += 8) {
        const int *offsets = columns->offsets + lane / 4;
        const uint32_t *shuffles = columns->shuffles + lane;
        const float *weights = columns->weights + lane;
        __m256i bytes = _mm256_setzero_si256(), shuffle = bytes;
        __m256 sum = _mm256_setzero_ps();
        for (int t = 0; t < num_taps; t++, weights += num_lanes) {
            if (t % TAPS_A_LOAD == 0) {
                __m128i low = _mm_loadu_si128((const __m128i *)(row + offsets[0]));
                __m128i high = _mm_loadu_si128((const __m128i *)(row + offsets[1]));
                bytes = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
                shuffle = _mm256_load_si256((const __m256i *)shuffles);
                offsets += num_lanes / 4;
                shuffles += num_lanes;
            }
            __m256 picked = _mm256_cvtepi32_ps(_mm256_shuffle_epi8(bytes, shuffle));
            sum = _mm256_add_ps(sum, _mm256_mul_ps(picked, _mm256_load_ps(weights)));
            shuffle = _mm256_add_epi32(shuffle, pixel);
        }
        if (by_value) {
            _mm256_storeu_ps(sums + lane, sum);
        } else { /* each idle lane is written over by the next pixel */
            _mm_storeu_ps(sums + lane / 4 * 3, _mm256_castps256_ps128(sum));
            _mm_storeu_ps(sums + lane / 4 * 3 + 3, _mm256_extractf128_ps(sum, 1));
        }
    }
}

AVX2 static void sum_vectors(const Columns *columns, const uint8_t *row, float *sums)
{
    if (columns->lanes_a_load != 4)
        sum_arranged(columns->num_taps, 0, columns, row, sums);
    else if (columns->num_taps == 2) /* constants, so that the inner loop disappears */
        sum_arranged(2, 1, columns, row, sums);
    else if (columns->num_taps == 3)
        sum_arranged(3, 1, columns, row, sums);
    else
        sum_arranged(columns->num_taps, 1, columns, row, sums);
}

#endif

void columns_make(Columns *columns, const Taps *taps, Resizer *resizer, int flip, int row_bytes)
{
    *columns = (Columns){.taps = taps, .size = resizer->size, .flip = flip};
#if HAS_AVX2_CODE
    if (resizer->use_avx2)
        arrange(columns, &resizer->groups, row_bytes);
#else
    (void)row_bytes;
#endif
}

void columns_sum(const Columns *columns, const uint8_t *row, float *sums)
{
#if HAS_AVX2_CODE
    if (columns->num_taps > 0) {
        sum_vectors(columns, row, sums);
        return;
    }
#endif
    sum_plain(columns->taps, columns->size, columns->flip, row, sums);
}
