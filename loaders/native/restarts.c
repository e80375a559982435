/* Restart markers: writing them into a JPEG without changing a coefficient, and cutting a JPEG along them.
 *
 * A restart marker is a place where decoding can begin. With one after every few blocks of each row of blocks, what a
 * rectangle needs can be copied out as a small JPEG of its own: the header with a smaller size, and those segments,
 * renumbered. The rest is then never decoded, not even its Huffman codes, which are most of the work. Source: ITU-T
 * T.81, sections B.2.4.4 and F.1.1.5. */
#include "feedrate.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

enum { SOI = 0xD8, EOI = 0xD9, SOS = 0xDA, DRI = 0xDD, DHT = 0xC4, SOF0 = 0xC0, SOF1 = 0xC1, SOF15 = 0xCF };
enum { RST0 = 0xD0, RST7 = 0xD7 };

/* Blocks between two markers, aimed at. Fewer cut closer, and cost bytes and time at each marker: a random crop of
 * ImageNet's photos takes 0.56 of the whole's time with about 6, 0.55 with 4, and the file grows by 1 %. */
enum { WANTED_INTERVAL = 5 };

typedef struct {
    struct jpeg_error_mgr base;
    jmp_buf escape;
} Errors;

static void give_up(j_common_ptr info)
{
    longjmp(((Errors *)info->err)->escape, 1);
}

static void take_message(j_common_ptr info, int level)
{
    if (level < 0) /* a warning: libjpeg would mend something, and the result would be another file */
        give_up(info);
}

/* The divisor of `columns` nearest to WANTED_INTERVAL, by ratio; not 1, where there is a choice. */
static int interval_for(int columns)
{
    int best = columns;
    for (int interval = 2; interval < columns; interval++) {
        int larger = interval > WANTED_INTERVAL ? interval : WANTED_INTERVAL;
        int smaller = interval > WANTED_INTERVAL ? WANTED_INTERVAL : interval;
        int best_larger = best > WANTED_INTERVAL ? best : WANTED_INTERVAL;
        int best_smaller = best > WANTED_INTERVAL ? WANTED_INTERVAL : best;
        if (columns % interval == 0 && larger * best_smaller < best_larger * smaller)
            best = interval;
    }
    return best;
}

static int rewrite(struct jpeg_decompress_struct *source, struct jpeg_compress_struct *target)
{
    jpeg_read_header(source, TRUE);
    if ((source->num_components != 1 && source->num_components != 3) || source->data_precision != 8)
        return 0;
    jvirt_barray_ptr *coefficients = jpeg_read_coefficients(source);
    if (!is_complete(source)) /* as a sequential file nothing would be smoothed */
        return 0;
    jpeg_copy_critical_parameters(source, target);
    target->optimize_coding = TRUE; /* the shorter codes pay for the markers */
    /* a component alone has blocks of 8 × 8, whatever its sampling factors say */
    int block = source->num_components == 1 ? 8 : 8 * source->max_h_samp_factor;
    target->restart_interval = (unsigned)interval_for(((int)source->image_width + block - 1) / block);
    jpeg_write_coefficients(target, coefficients);
    jpeg_finish_compress(target);
    jpeg_finish_decompress(source);
    return 1;
}

/* The same coefficients, so the same pixels, in one sequential scan with restart markers, each row of blocks beginning
 * at one; metadata are left out. Returns the size, and in `out` memory for feedrate_release. 0, and no memory, where
 * libjpeg finds anything to mend, for progressive files that leave bits out, and for other kinds than 8-bit JPEGs of one
 * or three components. */
int64_t feedrate_add_restarts(const uint8_t *jpeg, int64_t size, uint8_t **out)
{
    struct jpeg_decompress_struct source;
    struct jpeg_compress_struct target;
    Errors errors;
    /* A buffer of our own, nearly always large enough. One that libjpeg grows by itself it tells of only at the end: after
     * an error in between nobody could know what to free. */
    const unsigned long room = 2 * (unsigned long)size + 65536;
    unsigned char *const memory = malloc(room);
    unsigned char *written = memory;
    unsigned long written_size = room;
    volatile int done = 0;

    if (!memory)
        return 0;

    memset(&source, 0, sizeof source); /* to destroy what was never created is harmless then */
    memset(&target, 0, sizeof target);
    source.err = target.err = jpeg_std_error(&errors.base);
    errors.base.error_exit = give_up;
    errors.base.emit_message = take_message;
    if (!setjmp(errors.escape)) {
        jpeg_create_decompress(&source);
        jpeg_create_compress(&target);
        jpeg_mem_src(&source, jpeg, (unsigned long)size);
        jpeg_mem_dest(&target, &written, &written_size);
        done = rewrite(&source, &target);
    }
    jpeg_destroy_compress(&target);
    jpeg_destroy_decompress(&source);
    if (!done || written != memory)
        free(memory);
    if (!done)
        return 0;
    *out = written;
    return (int64_t)written_size;
}

void feedrate_release(uint8_t *memory)
{
    free(memory);
}

/* What a header says. */
typedef struct {
    size_t frame, scan; /* where the frame's marker stands, where the compressed data begin */
    int width, height;
    int block_w, block_h; /* pixels of one minimum coded unit */
    int components, interval;
} Head;

static int be16(const uint8_t *bytes)
{
    return bytes[0] << 8 | bytes[1];
}

static int read_frame(const uint8_t *jpeg, size_t at, size_t length, Head *head)
{
    if (head->frame || length < 8 || jpeg[at + 4] != 8)
        return 0;
    int most_h = 1, most_v = 1;
    head->components = jpeg[at + 9];
    if ((head->components != 1 && head->components != 3) || length < 8 + 3 * (size_t)head->components)
        return 0;
    for (int number = 0; number < head->components; number++) {
        int factors = jpeg[at + 11 + 3 * (size_t)number];
        most_h = factors >> 4 > most_h ? factors >> 4 : most_h;
        most_v = (factors & 15) > most_v ? factors & 15 : most_v;
    }
    head->frame = at;
    head->height = be16(jpeg + at + 5);
    head->width = be16(jpeg + at + 7);
    head->block_w = head->components == 1 ? 8 : 8 * most_h;
    head->block_h = head->components == 1 ? 8 : 8 * most_v;
    return head->width > 0 && head->height > 0;
}

/* Whether this is a sequential Huffman-coded JPEG with restart markers, all its components in one scan. */
static int read_head(const uint8_t *jpeg, size_t size, Head *head)
{
    *head = (Head){0};
    if (size < 4 || jpeg[0] != 0xFF || jpeg[1] != SOI)
        return 0;
    for (size_t at = 2, length; at + 4 < size; at += 2 + length) {
        int marker = jpeg[at + 1];
        length = (size_t)be16(jpeg + at + 2);
        if (jpeg[at] != 0xFF || marker < SOF0 || length < 2 || at + 2 + length > size)
            return 0;
        if (marker == SOS) {
            head->scan = at + 2 + length;
            return head->frame && head->interval && length > 2 && jpeg[at + 4] == head->components;
        }
        if (marker == SOF0 || marker == SOF1) {
            if (!read_frame(jpeg, at, length, head))
                return 0;
        } else if (marker == DRI) {
            if (length != 4)
                return 0;
            head->interval = be16(jpeg + at + 4);
        } else if (marker <= SOF15 && marker != DHT) {
            return 0; /* another kind of frame */
        }
    }
    return 0;
}

/* Where each of `expected` segments begins, and behind the last, what follows the end marker. 0 unless there are as many,
 * in their order, and then the end: what is cut short or damaged is for others to judge. */
static int find_segments(const uint8_t *jpeg, size_t size, size_t scan, size_t expected, size_t *starts)
{
    const uint8_t *at = jpeg + scan, *last = jpeg + size - 1;
    size_t found = 1;
    starts[0] = scan;
    while (at < last && (at = memchr(at, 0xFF, (size_t)(last - at)))) {
        int marker = at[1];
        if (marker >= RST0 && marker <= RST7) {
            if (found == expected || marker != RST0 + (int)((found - 1) & 7))
                return 0;
            starts[found++] = (size_t)(at + 2 - jpeg);
        } else if (marker == EOI) {
            starts[found] = (size_t)(at + 2 - jpeg);
            return found == expected;
        } else if (marker != 0) {
            return 0;
        }
        at += 2;
    }
    return 0;
}

/* The blocks [*first, *last] that pixels [start, stop) need: one more on either side, since the colours next to the
 * border of what is decoded are interpolated otherwise. */
static void blocks_for(int start, int stop, int block, int count, int *first, int *last)
{
    *first = start / block > 0 ? start / block - 1 : 0;
    *last = (stop - 1) / block + 1 < count ? (stop - 1) / block + 1 : count - 1;
}

static uint8_t *put16(uint8_t *to, int value)
{
    to[0] = (uint8_t)(value >> 8);
    to[1] = (uint8_t)value;
    return to + 2;
}

int restarts_cut(Cutter *cutter, const uint8_t *jpeg, size_t size, const int window[4], Cut *cut)
{
    Head head;
    if (!read_head(jpeg, size, &head) || window[2] > head.width || window[3] > head.height)
        return 0;
    int columns = (head.width + head.block_w - 1) / head.block_w, rows = (head.height + head.block_h - 1) / head.block_h;
    size_t per_row = (size_t)(columns / head.interval), expected = (size_t)rows * per_row;
    if (columns % head.interval || expected > size / 2)
        return 0;
    size_t *starts = buffer_reserve(&cutter->starts, (expected + 1) * sizeof *starts);
    uint8_t *out = buffer_reserve(&cutter->bytes, size);
    if (!starts || !out || !find_segments(jpeg, size, head.scan, expected, starts))
        return 0;
    int left, right, top, bottom, number = 0;
    blocks_for(window[0], window[2], head.block_w, columns, &left, &right);
    blocks_for(window[1], window[3], head.block_h, rows, &top, &bottom);
    size_t first = (size_t)(left / head.interval), last = (size_t)(right / head.interval);
    int part_w = head.interval * head.block_w; /* pixels of one segment */
    cut->left = (int)first * part_w;
    cut->top = top * head.block_h;
    cut->width = (last + 1 == per_row ? head.width : (int)(last + 1) * part_w) - cut->left;
    cut->height = (bottom + 1 == rows ? head.height : (bottom + 1) * head.block_h) - cut->top;
    memcpy(out, jpeg, head.scan);
    put16(put16(out + head.frame + 5, cut->height), cut->width);
    uint8_t *to = out + head.scan;
    for (int row = top; row <= bottom; row++) {
        for (size_t part = (size_t)row * per_row + first; part <= (size_t)row * per_row + last; part++) {
            size_t length = starts[part + 1] - 2 - starts[part];
            memcpy(to, jpeg + starts[part], length);
            to = put16(to + length, 0xFF00 | (RST0 + (number++ & 7)));
        }
    }
    to[-1] = EOI; /* in place of the last marker */
    cut->data = out;
    cut->size = (size_t)(to - out);
    cut->whole_w = head.width;
    cut->whole_h = head.height;
    return 1;
}

void cutter_free(Cutter *cutter)
{
    buffer_free(&cutter->bytes);
    buffer_free(&cutter->starts);
}

/* restarts_cut for other decoders than ours: into `out`, `size` bytes of memory; `cut` becomes (left, top, width, height)
 * of what was cut out. Returns its size, 0 where the file cannot be cut. */
int64_t feedrate_cut(const uint8_t *jpeg, int64_t size, const int32_t rect[4], uint8_t *out, int32_t where[4])
{
    Cutter cutter = {{0}, {0}};
    Cut cut = {0};
    int64_t cut_size = 0;
    const int window[4] = {rect[0], rect[1], rect[0] + rect[2], rect[1] + rect[3]};
    if (rect[0] >= 0 && rect[1] >= 0 && rect[2] > 0 && rect[3] > 0 &&
        restarts_cut(&cutter, jpeg, (size_t)size, window, &cut)) {
        memcpy(out, cut.data, cut.size);
        where[0] = cut.left, where[1] = cut.top, where[2] = cut.width, where[3] = cut.height;
        cut_size = (int64_t)cut.size;
    }
    cutter_free(&cutter);
    return cut_size;
}
