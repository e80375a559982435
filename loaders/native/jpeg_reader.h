/* Shared by jpeg_reader.c, jpeg_window.c and seek_points.c. */
#ifndef FEEDRATE_JPEG_READER_H
#define FEEDRATE_JPEG_READER_H

#include "feedrate.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include "huffman.h"

/* Whatever goes wrong in libjpeg or here ends at `escape`, which has to be set before anything is read. */
struct JpegReader {
    struct jpeg_decompress_struct info;
    struct jpeg_error_mgr errors;
    struct jpeg_source_mgr source;
    jmp_buf escape;
    Buffer pixels;
    Cutter cutter;
    Huffman huffman;
};

/* Start with a file in memory and read its header; only forms that windows know, of these `size`s, get through. */
void jpeg_reader_open(JpegReader *reader, const uint8_t *jpeg, size_t size);
_Noreturn void jpeg_give_up(JpegReader *reader);

/* The one that reads this file. */
static inline JpegReader *reader_of(struct jpeg_decompress_struct *info)
{
    return info->client_data;
}

#endif
