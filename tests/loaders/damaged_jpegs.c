/* Decode windows of damaged JPEGs, with Huffman codes decoded by the kernel and by libjpeg, for a program that is compiled
 * with sanitizers: damaged_jpegs NUM_DAMAGES FILE …
 *
 * What the kernel's decoder finishes, libjpeg must finish, too, with the same pixels. Ends with 1 where it does not. With
 * seek points, of the sound file or false ones that are signed as if they were right, it only has to stay in memory. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

#include "feedrate.h"
#include "huffman.h"

extern int32_t feedrate_own_codes;
extern uint32_t feedrate_files_taken_over;
extern uint32_t feedrate_windows_sought, feedrate_points_given_up;
extern int64_t feedrate_seek_points(const uint8_t *jpeg, int64_t size, int spacing, uint8_t *out, int64_t room);

static uint64_t state;

static int below(int limit)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return limit > 0 ? (int)((state >> 33) % (uint64_t)limit) : 0;
}

/* Bytes overwritten anywhere, or in the header; every seventeenth is cut short. */
static int damage(uint8_t *bytes, int size, int number)
{
    for (int i = 0; number > 0 && i <= number % 4; i++) {
        int at = below(3) ? below(size) : below(size < 700 ? size : 700), way = below(4);
        bytes[at] = (uint8_t)(way == 0 ? 0xFF : way == 1 ? bytes[at] ^ 1 << below(8) : below(256));
    }
    return number % 17 == 16 ? below(size) : size;
}

static int size_of(const uint8_t *bytes, int size, int *width, int *height)
{
    struct jpeg_decompress_struct info;
    struct jpeg_error_mgr errors;
    info.err = jpeg_std_error(&errors);
    jpeg_create_decompress(&info);
    jpeg_mem_src(&info, bytes, (unsigned long)size);
    jpeg_read_header(&info, TRUE);
    *width = (int)info.image_width;
    *height = (int)info.image_height;
    jpeg_destroy_decompress(&info);
    return *width > 0 && *height > 0;
}

/* Make points wrong, some of them, and sign them for the file as it is. */
static void falsify(uint8_t *noted, int size, const uint8_t *bytes, int kept)
{
    int start = 2;
    while (start + 4 < kept && !(bytes[start] == 0xFF && bytes[start + 1] == 0xDA))
        start++;
    if (start + 4 >= kept)
        return;
    start += 2 + (bytes[start + 2] << 8 | bytes[start + 3]);
    if (below(4) == 0)
        noted[0] = (uint8_t)(1 + below(40)); /* the spacing */
    for (int i = 0; i < 3; i++)
        noted[14 + below(size - 14)] = (uint8_t)below(256);
    uint32_t scan_bytes = noted[2] | noted[3] << 8 | noted[4] << 16 | (uint32_t)noted[5] << 24;
    if (start + (int64_t)scan_bytes > kept)
        return;
    uint32_t check = seek_points_check(noted, (size_t)size, bytes + start, scan_bytes);
    for (int i = 0; i < 4; i++)
        noted[10 + i] = (uint8_t)(check >> 8 * i);
}

static int is_same(const Pixels *one, const Pixels *two)
{
    for (int y = 0; y < one->height; y++)
        if (memcmp(one->first + y * one->stride, two->first + y * two->stride, 3 * (size_t)one->width) != 0)
            return 0;
    return 1;
}

int main(int count, char **words)
{
    long num_both = 0, num_neither = 0, num_left = 0;
    for (int word = 2; word < count; word++) {
        static uint8_t whole[1 << 20];
        FILE *file = fopen(words[word], "rb");
        int size = file ? (int)fread(whole, 1, sizeof whole, file) : 0, width, height;
        if (!file || fclose(file) || !size_of(whole, size, &width, &height))
            return 2;
        static uint8_t noted[1 << 16];
        int noted_size = (int)feedrate_seek_points(whole, size, 1 + word % 9, noted, sizeof noted);
        JpegReader *readers[2] = {jpeg_reader_new(), jpeg_reader_new()};
        for (int number = 0; number < atoi(words[1]); number++) {
            state = (uint64_t)(word * 100003 + number);
            uint8_t *bytes = malloc((size_t)size + 1);
            memcpy(bytes, whole, (size_t)size);
            int kept = damage(bytes, size, number), done[2];
            bytes = realloc(bytes, (size_t)kept + (kept == 0)); /* one byte further is not ours */
            int w = 1 + below(width), h = 1 + below(height), x = below(width - w + 1), y = below(height - h + 1);
            const int window[4] = {x, y, x + w, y + h};
            Row row = {.data = bytes, .size = kept, .width = width, .height = height};
            Pixels pixels[2];
            for (feedrate_own_codes = 0; feedrate_own_codes < 2; feedrate_own_codes++)
                done[feedrate_own_codes] =
                    jpeg_window(readers[feedrate_own_codes], &row, window, pixels + feedrate_own_codes);
            if (done[1] && (!done[0] || !is_same(pixels, pixels + 1))) {
                printf("%s, damage %d: not what libjpeg makes of it\n", words[word], number);
                return 1;
            }
            if (noted_size) {
                uint8_t *points = malloc((size_t)noted_size);
                memcpy(points, noted, (size_t)noted_size);
                if (number % 2)
                    falsify(points, noted_size, bytes, kept);
                row.seek = points;
                row.seek_bytes = noted_size;
                jpeg_window(readers[1], &row, window, pixels);
                free(points);
            }
            num_both += done[1];
            num_left += done[0] && !done[1];
            num_neither += !done[0];
            free(bytes);
        }
        jpeg_reader_free(readers[0]);
        jpeg_reader_free(readers[1]);
    }
    printf("%ld %ld %ld %ld ", num_both, num_neither, num_left, (long)feedrate_files_taken_over);
    printf("%ld %ld\n", (long)feedrate_windows_sought, (long)feedrate_points_given_up);
    return 0;
}
