/* A window of a baseline or progressive JPEG, with the bits of a whole decode (ISLOW, smooth chroma upsampling).
 *
 * Chroma is interpolated between neighbours, so a little more is decoded on both sides. Decoding stops after the window's
 * last row; of what follows only the markers are looked at. */
#include "feedrate.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include "huffman.h"

enum { MARGIN = 2 }; /* columns; the one next to the border of what is decoded is interpolated otherwise */

struct JpegReader {
    struct jpeg_decompress_struct info;
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    jmp_buf escape;
    Buffer pixels;
    Cutter cutter;
    Huffman huffman;
};

static void give_up(j_common_ptr info)
{
    longjmp(((JpegReader *)info->client_data)->escape, 1);
}

static void take_message(j_common_ptr info, int level)
{
    if (level < 0) /* a warning: the data are damaged */
        give_up(info);
}

static boolean no_more_bytes(j_decompress_ptr info)
{
    give_up((j_common_ptr)info);
    return FALSE;
}

static void skip_bytes(j_decompress_ptr info, long num_bytes)
{
    if (num_bytes < 0 || (size_t)num_bytes > info->src->bytes_in_buffer)
        give_up((j_common_ptr)info);
    info->src->next_input_byte += num_bytes;
    info->src->bytes_in_buffer -= (size_t)num_bytes;
}

static void do_nothing(j_decompress_ptr info)
{
    (void)info;
}

static void no_output(j_common_ptr info)
{
    (void)info;
}

JpegReader *jpeg_reader_new(void)
{
    JpegReader *volatile reader = calloc(1, sizeof *reader);
    if (!reader)
        return NULL;
    reader->info.err = jpeg_std_error(&reader->errors);
    reader->errors.error_exit = give_up;
    reader->errors.emit_message = take_message;
    reader->errors.output_message = no_output;
    reader->info.client_data = reader;
    if (setjmp(reader->escape)) { /* another library than the header is of, or no memory */
        free(reader);
        return NULL;
    }
    jpeg_create_decompress(&reader->info);
    reader->info.client_data = reader;
    reader->source.init_source = do_nothing;
    reader->source.fill_input_buffer = no_more_bytes;
    reader->source.skip_input_data = skip_bytes;
    reader->source.resync_to_restart = jpeg_resync_to_restart;
    reader->source.term_source = do_nothing;
    reader->info.src = &reader->source;
    return reader;
}

void jpeg_reader_free(JpegReader *reader)
{
    if (reader) {
        jpeg_destroy_decompress(&reader->info);
        buffer_free(&reader->pixels);
        cutter_free(&reader->cutter);
        huffman_free(&reader->huffman);
        free(reader);
    }
}

Huffman *huffman_of(struct jpeg_decompress_struct *info)
{
    return &((JpegReader *)info->client_data)->huffman;
}

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

/* Forms whose windows have the bits of a whole decode; the tests go through all of them. */
static int is_usual(const struct jpeg_decompress_struct *info)
{
    const jpeg_component_info *parts = info->comp_info;
    if (info->arith_code || info->data_precision != 8)
        return 0;
    if (info->jpeg_color_space == JCS_GRAYSCALE)
        return info->num_components == 1 && parts[0].h_samp_factor == 1 && parts[0].v_samp_factor == 1;
    if ((info->jpeg_color_space != JCS_YCbCr && info->jpeg_color_space != JCS_RGB) || info->num_components != 3)
        return 0;
    for (int part = 1; part < 3; part++)
        if (parts[part].h_samp_factor != 1 || parts[part].v_samp_factor != 1)
            return 0;
    return parts[0].h_samp_factor <= 2 && parts[0].v_samp_factor <= 2;
}

int is_complete(const struct jpeg_decompress_struct *info)
{
    if (!info->progressive_mode)
        return 1;
    for (int part = 0; part < info->num_components; part++)
        for (int k = 0; k < DCTSIZE2; k++)
            if (info->coef_bits[part][k] != 0)
                return 0;
    return 1;
}

/* Make the tables of the file before unusable: libjpeg keeps them, for streams that have theirs in a file of their own. So
 * a file that misses one would be decoded by a stranger's. */
static void spoil_tables(struct jpeg_decompress_struct *info)
{
    for (int number = 0; number < NUM_QUANT_TBLS; number++)
        if (info->quant_tbl_ptrs[number])
            info->quant_tbl_ptrs[number]->quantval[0] = 0;
    for (int number = 0; number < NUM_HUFF_TBLS; number++) {
        JHUFF_TBL *tables[] = {info->dc_huff_tbl_ptrs[number], info->ac_huff_tbl_ptrs[number]};
        for (int i = 0; i < 2; i++)
            if (tables[i])
                tables[i]->bits[1] = 255; /* codes of one bit: libjpeg refuses it */
    }
}

static int has_own_tables(const struct jpeg_decompress_struct *info)
{
    for (int part = 0; part < info->num_components; part++) {
        int number = info->comp_info[part].quant_tbl_no;
        if (number < 0 || number >= NUM_QUANT_TBLS || !info->quant_tbl_ptrs[number] ||
            info->quant_tbl_ptrs[number]->quantval[0] == 0)
            return 0;
    }
    return 1;
}

int jpeg_window(JpegReader *reader, const Row *row, const int window[4], Pixels *pixels)
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
    reader->source.next_input_byte = part.data;
    reader->source.bytes_in_buffer = part.size;
    spoil_tables(info);
    jpeg_read_header(info, TRUE);
    if ((int64_t)info->image_width != part.width || (int64_t)info->image_height != part.height || !is_usual(info) ||
        !has_own_tables(info))
        give_up((j_common_ptr)info);
    info->out_color_space = JCS_RGB;
    info->dct_method = JDCT_ISLOW;
    info->do_fancy_upsampling = TRUE;
    jpeg_start_decompress(info);
    if (!is_complete(info))
        give_up((j_common_ptr)info);
    JDIMENSION left = x0 > MARGIN ? (JDIMENSION)(x0 - MARGIN) : 0;
    JDIMENSION width = (JDIMENSION)(x1 + MARGIN < part.width ? x1 + MARGIN : part.width) - left;
    if (left > 0 || (int)width < part.width)
        jpeg_crop_scanline(info, &left, &width);
    huffman_take_over(info, &reader->huffman, left, width);
    size_t stride = (size_t)info->output_width * 3;
    uint8_t *first = buffer_reserve(&reader->pixels, stride * (size_t)(y1 - y0));
    if (!first)
        give_up((j_common_ptr)info);
    if (y0 > 0 && jpeg_skip_scanlines(info, (JDIMENSION)y0) != (JDIMENSION)y0)
        give_up((j_common_ptr)info);
    for (int y = 0; y < y1 - y0; y++) {
        JSAMPROW target = first + stride * (size_t)y;
        if (jpeg_read_scanlines(info, &target, 1) != 1)
            give_up((j_common_ptr)info);
    }
    if (!rest_is_sound(info))
        give_up((j_common_ptr)info);
    jpeg_abort_decompress(info);
    *pixels = (Pixels){first + 3 * ((size_t)x0 - left), (ptrdiff_t)stride, x1 - x0, y1 - y0};
    return 1;
}
