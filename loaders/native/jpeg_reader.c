/* libjpeg reading a file in memory, strictly: a warning is an error. */
#include "jpeg_reader.h"

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
    return &reader_of(info)->huffman;
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

void jpeg_reader_open(JpegReader *reader, const uint8_t *jpeg, size_t size)
{
    struct jpeg_decompress_struct *info = &reader->info;
    reader->source.next_input_byte = jpeg;
    reader->source.bytes_in_buffer = size;
    spoil_tables(info);
    jpeg_read_header(info, TRUE);
    if (!is_usual(info) || !has_own_tables(info))
        jpeg_give_up(reader);
    info->out_color_space = JCS_RGB;
    info->dct_method = JDCT_ISLOW;
    info->do_fancy_upsampling = TRUE;
}

void jpeg_give_up(JpegReader *reader)
{
    longjmp(reader->escape, 1);
}
