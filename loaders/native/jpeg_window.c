/* A window of a baseline or progressive JPEG, with the bits of a whole decode (ISLOW, smooth chroma upsampling).
 *
 * Chroma is interpolated between neighbours, so a little more is decoded on both sides. Decoding stops after the window's
 * last row; of what follows only the markers are looked at. */
#include "jpeg_reader.h"

enum { MARGIN = 2 }; /* columns; the one next to the border of what is decoded is interpolated otherwise */

/* Whether what was not decoded holds nothing that a whole decode would object to: up to the end marker no other marker
 * but restarts in their order. So a file that is cut short or overwritten behind the window is still found out. Wrong
 * codes are not, but of those decoders only warn, and the window's pixels do not depend on them. */
static int rest_is_sound(struct jpeg_decompress_struct *info)
{
    if (jpeg_input_complete(info)) /* several scans: all has been read already */
        return 1;
    const uint8_t *at = info->src->next_input_byte, *end = at + info->src->bytes_in_buffer;
    int marker = info->unread_marker, restart = 0; /* the marker to come; 0: any */
    while (marker != JPEG_EOI) {
        if (marker != 0) {
            int is_restart = marker >= JPEG_RST0 && marker <= JPEG_RST0 + 7 && info->restart_interval != 0;
            if (!is_restart || (restart != 0 && marker != restart))
                return 0;
            restart = JPEG_RST0 + ((marker + 1) & 7);
        }
        if (at >= end || !(at = memchr(at, 0xFF, (size_t)(end - at))) || ++at >= end)
            return 0;
        marker = *at++;
        while (marker == 0xFF && at < end) /* any number of them may come before a marker */
            marker = *at++;
    }
    return 1;
}

/* For measurements and tests: how many windows were decoded from seek points on, and of how many they were given up on the
 * way, for another decode. */
uint32_t feedrate_windows_sought = 0, feedrate_points_given_up = 0;

/* With seek points where `seek` is not NULL. */
static int decode_window(
    JpegReader *reader, const Row *row, const uint8_t *seek, const int window[4], Pixels *pixels)
{
    struct jpeg_decompress_struct *info = &reader->info;
    Cut part = {row->data, (size_t)row->size, 0, 0, row->width, row->height, row->width, row->height};
    if (row->size < 4)
        return 0;
    if (setjmp(reader->escape)) {
        jpeg_abort_decompress(info);
        return 0;
    }
    if (restarts_cut(&reader->cutter, row->data, (size_t)row->size, window, &part) &&
        (part.whole_w != row->width || part.whole_h != row->height))
        return 0;
    int x0 = window[0] - part.left, y0 = window[1] - part.top, x1 = window[2] - part.left, y1 = window[3] - part.top;
    jpeg_reader_open(reader, part.data, part.size);
    if ((int64_t)info->image_width != part.width || (int64_t)info->image_height != part.height)
        jpeg_give_up(reader);
    jpeg_start_decompress(info);
    if (!is_complete(info))
        jpeg_give_up(reader);
    JDIMENSION left = x0 > MARGIN ? (JDIMENSION)(x0 - MARGIN) : 0;
    JDIMENSION width = (JDIMENSION)(x1 + MARGIN < part.width ? x1 + MARGIN : part.width) - left;
    if (left > 0 || (int)width < part.width)
        jpeg_crop_scanline(info, &left, &width);
    huffman_take_over(info, &reader->huffman, left, width, seek, (size_t)row->seek_bytes);
    int unit_height = DCTSIZE * (info->comps_in_scan == 1 ? 1 : info->max_v_samp_factor);
    reader->huffman.last_row = (JDIMENSION)((y1 - 1) / unit_height);
    size_t stride = (size_t)info->output_width * 3;
    uint8_t *first = buffer_reserve(&reader->pixels, stride * (size_t)(y1 - y0));
    if (!first)
        jpeg_give_up(reader);
    if (y0 > 0 && jpeg_skip_scanlines(info, (JDIMENSION)y0) != (JDIMENSION)y0)
        jpeg_give_up(reader);
    for (int y = 0; y < y1 - y0; y++) {
        JSAMPROW target = first + stride * (size_t)y;
        if (jpeg_read_scanlines(info, &target, 1) != 1)
            jpeg_give_up(reader);
    }
    if (!rest_is_sound(info))
        jpeg_give_up(reader);
    jpeg_abort_decompress(info);
    *pixels = (Pixels){first + 3 * ((size_t)x0 - left), (ptrdiff_t)stride, x1 - x0, y1 - y0};
    return 1;
}

int jpeg_window(JpegReader *reader, const Row *row, const int window[4], Pixels *pixels)
{
    if (row->seek) {
        memset(&reader->huffman.seek, 0, sizeof reader->huffman.seek);
        int is_done = decode_window(reader, row, row->seek, window, pixels);
        if (reader->huffman.seek.points)
            __atomic_fetch_add(is_done ? &feedrate_windows_sought : &feedrate_points_given_up, 1, __ATOMIC_RELAXED);
        if (is_done)
            return 1;
    }
    return decode_window(reader, row, NULL, window, pixels);
}
