/* The kernel's entry: rows of a batch, from stored bytes to finished images. */
#include "feedrate.h"

#include <stdlib.h>
#include <string.h>

typedef struct {
    Resizer resizer;
    JpegReader *reader;
    Buffer padded; /* a rectangle that reaches past the sample's border, filled */
    uint8_t fill[3];
    Filter filter;
    StageClock clock;
} Painter;

void *buffer_reserve(Buffer *buffer, size_t size)
{
    if (size > buffer->size) {
        free(buffer->bytes);
        size = (size + 63) / 64 * 64;
        buffer->bytes = aligned_alloc(64, size);
        buffer->size = buffer->bytes ? size : 0;
    }
    return buffer->bytes;
}

void buffer_free(Buffer *buffer)
{
    free(buffer->bytes);
}

void resizer_free(Resizer *resizer)
{
    buffer_free(&resizer->columns);
    buffer_free(&resizer->rows);
    buffer_free(&resizer->groups);
    buffer_free(&resizer->sums);
}

void feedrate_free(Painter *painter)
{
    if (painter) {
        jpeg_reader_free(painter->reader);
        buffer_free(&painter->padded);
        resizer_free(&painter->resizer);
        free(painter);
    }
}

/* One thread's means of making images of `size` × `size` pixels; `fill` is what lies past a sample's border. */
Painter *feedrate_new(int size, const uint8_t *fill, int filter, int may_use_vectors)
{
    Painter *painter = calloc(1, sizeof *painter);
    if (!painter)
        return NULL;
    painter->resizer.size = size;
    painter->filter = (Filter)filter;
#if HAS_AVX2_CODE
    painter->resizer.use_avx2 = may_use_vectors && __builtin_cpu_supports("avx2");
#endif
    (void)may_use_vectors;
    memcpy(painter->fill, fill, 3);
    painter->reader = jpeg_reader_new();
    if (!painter->reader) {
        feedrate_free(painter);
        return NULL;
    }
    return painter;
}

static void copy_pixels(uint8_t *to, const uint8_t *from, int num_pixels, int flip)
{
    if (!flip) {
        memcpy(to, from, 3 * (size_t)num_pixels);
        return;
    }
    const uint8_t *last = from + 3 * (size_t)(num_pixels - 1);
    if (num_pixels > 1) {
        memcpy(to, last, 3);
        /* four bytes at once take half as long as three: what is written past a pixel the next one overwrites */
        for (to += 3, last -= 3; last > from; to += 3, last -= 3)
            memcpy(to, last, 4);
    }
    memcpy(to, from, 3);
}

static void fill_pixels(uint8_t *to, const uint8_t fill[3], size_t num_pixels)
{
    for (size_t i = 0; i < num_pixels; i++)
        memcpy(to + 3 * i, fill, 3);
}

/* `pixels` with `before` columns and `above` rows of fill, in all width × height, mirrored if `flip`. */
static void pad(
    uint8_t *to, int width, int height, Pixels pixels, int before, int above, const uint8_t fill[3], int flip)
{
    if (pixels.width != width || pixels.height != height)
        fill_pixels(to, fill, (size_t)width * (size_t)height);
    int start = flip ? width - before - pixels.width : before;
    for (int y = 0; y < pixels.height; y++)
        copy_pixels(
            to + 3 * ((size_t)(y + above) * (size_t)width + (size_t)start),
            pixels.first + y * pixels.stride,
            pixels.width,
            flip);
}

/* From here on note what stages take in `row`, which must stay. */
void feedrate_time(Painter *painter, StageRow *row)
{
    painter->clock.row = row;
}

/* The part of a rectangle that lies in the sample: left, top, right, bottom. Empty where the rectangle lies beside it. */
static void window_of(const Row *row, int window[4])
{
    int64_t right = (int64_t)row->left + row->cut_w, bottom = (int64_t)row->top + row->cut_h;
    window[0] = row->left > 0 ? row->left : 0;
    window[1] = row->top > 0 ? row->top : 0;
    window[2] = right < row->width ? (int)right : row->width;
    window[3] = bottom < row->height ? (int)bottom : row->height;
}

/* Bring what is needed of the stored bytes into memory: all of a file, of pixels the rectangle's rows. */
static void read_stored(const Row *row, const int window[4])
{
    ptrdiff_t stride = 3 * (ptrdiff_t)row->width;
    if (row->seek)
        touch_pages(row->seek, row->seek_bytes);
    if (!row->is_raw)
        touch_pages(row->data, row->size);
    else if (row->size == stride * row->height)
        touch_pages(row->data + window[1] * stride, (window[3] - window[1]) * stride);
}

/* The pixels of the window. 1 if done. */
static int decode(Painter *painter, const Row *row, const int window[4], Pixels *pixels)
{
    if (!row->is_raw)
        return jpeg_window(painter->reader, row, window, pixels);
    ptrdiff_t stride = 3 * (ptrdiff_t)row->width;
    *pixels = (Pixels){
        row->data + window[1] * stride + 3 * (ptrdiff_t)window[0],
        stride,
        window[2] - window[0],
        window[3] - window[1],
    };
    return row->size == stride * row->height;
}

/* Pad, resize, mirror the rectangle of which `pixels` is what lies in the sample. 1 if done. */
static int augment(Painter *painter, const Row *row, const int window[4], Pixels pixels, uint8_t *out)
{
    int size = painter->resizer.size, before = window[0] - row->left, above = window[1] - row->top;
    if (row->cut_w == size && row->cut_h == size) {
        pad(out, size, size, pixels, before, above, painter->fill, row->flip);
        return 1;
    }
    if (pixels.width != row->cut_w || pixels.height != row->cut_h) {
        uint8_t *padded = buffer_reserve(&painter->padded, 3 * (size_t)row->cut_w * (size_t)row->cut_h);
        if (!padded)
            return 0;
        pad(padded, row->cut_w, row->cut_h, pixels, before, above, painter->fill, 0);
        pixels = (Pixels){padded, 3 * (ptrdiff_t)row->cut_w, row->cut_w, row->cut_h};
    }
    if (painter->filter == AREA)
        return resize_area(&painter->resizer, pixels, row->flip, out);
    return resize_pillow(&painter->resizer, painter->filter, pixels, row->flip, out);
}

/* The pixels that lie in the sample and in the rectangle, which is `window` of the sample. 1 if done. */
static int fetch(Painter *painter, const Row *row, int window[4], Pixels *pixels)
{
    StageClock *clock = &painter->clock;
    window_of(row, window);
    if (clock->row && row->read_wall_ns >= 0) {
        clock_add(clock, row->read_wall_ns, row->read_cpu_ns);
        read_stored(row, window);
        clock_lap(clock, STAGE_READ, 1);
    }
    if (row->cut_w < 1 || row->cut_h < 1 || window[0] >= window[2] || window[1] >= window[3])
        return 0;
    int is_done = decode(painter, row, window, pixels);
    if (!row->is_raw)
        clock_lap(clock, STAGE_DECODE, is_done);
    return is_done;
}

/* Make images [num_rows, size, size, 3] uint8 at `out`. is_done[i] becomes 0 where image i is left to the caller. */
void feedrate_paint(Painter *painter, const Row *rows, int num_rows, uint8_t *out, uint8_t *is_done)
{
    size_t num_bytes = 3 * (size_t)painter->resizer.size * (size_t)painter->resizer.size;
    for (int i = 0; i < num_rows; i++, out += num_bytes) {
        const Row *row = rows + i;
        Pixels pixels;
        int window[4];
        is_done[i] = 0;
        if (!row->data)
            continue;
        clock_image(&painter->clock);
        if (fetch(painter, row, window, &pixels)) {
            is_done[i] = (uint8_t)augment(painter, row, window, pixels, out);
            clock_lap(&painter->clock, STAGE_AUGMENT, is_done[i]);
        }
        clock_done(&painter->clock, is_done[i]);
    }
}

/* Copy the rectangle of row i, neither resized nor mirrored, to pixels starts[i] … of `out`, uint8 [starts[num_rows], 3].
 * is_done[i] becomes 0 where it is left to the caller, as where starts[i + 1] comes too soon. */
void feedrate_copy(
    Painter *painter, const Row *rows, int num_rows, uint8_t *out, const int64_t *starts, uint8_t *is_done)
{
    for (int i = 0; i < num_rows; i++) {
        const Row *row = rows + i;
        Pixels pixels;
        int window[4];
        is_done[i] = 0;
        if (!row->data || (int64_t)row->cut_w * row->cut_h > starts[i + 1] - starts[i])
            continue;
        clock_image(&painter->clock);
        if (fetch(painter, row, window, &pixels)) {
            int before = window[0] - row->left, above = window[1] - row->top;
            pad(out + 3 * starts[i], row->cut_w, row->cut_h, pixels, before, above, painter->fill, 0);
            is_done[i] = 1;
            clock_lap(&painter->clock, STAGE_AUGMENT, 1);
        }
        clock_done(&painter->clock, is_done[i]);
    }
}
