/* Copy and resize rectangles of raw samples, whose memory ends where they do, for a program that is compiled with
 * sanitizers: raw_rectangles NUM_TABLES
 *
 * Of what is copied each pixel must be the sample's, or the fill; what is resized only has to stay in memory. Ends with 1
 * where a rectangle is wrong, or left alone without need. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "feedrate.h"

typedef struct Painter Painter;
extern Painter *feedrate_new(int size, const uint8_t *fill, int filter, int may_use_vectors);
extern void feedrate_time(Painter *painter, StageRow *row);
extern void feedrate_free(Painter *painter);
extern void feedrate_paint(Painter *painter, const Row *rows, int num_rows, uint8_t *out, uint8_t *is_done);
extern void feedrate_copy(
    Painter *painter, const Row *rows, int num_rows, uint8_t *out, const int64_t *starts, uint8_t *is_done);

enum { MOST_ROWS = 5 };
static const uint8_t FILL[3] = {10, 130, 250};
static uint64_t state = 7;

static int below(int limit)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return limit > 0 ? (int)((state >> 33) % (uint64_t)limit) : 0;
}

/* A sample and a rectangle of it: within it, past its border, beside it, or without area. Every ninth is a byte short. */
static Row any_row(void)
{
    Row row = {.width = 1 + below(40), .height = 1 + below(40), .is_raw = 1, .flip = below(2)};
    row.left = below(2 * row.width) - row.width / 2;
    row.top = below(2 * row.height) - row.height / 2;
    row.cut_w = below(2 * row.width);
    row.cut_h = below(2 * row.height);
    row.size = 3 * row.width * row.height - (below(9) == 0);
    row.read_wall_ns = below(2) ? -1 : 5;
    uint8_t *data = malloc((size_t)row.size);
    for (int64_t i = 0; i < row.size; i++)
        data[i] = (uint8_t)below(256);
    row.data = data;
    return row;
}

static int is_whole(const Row *row)
{
    return row->size == 3 * row->width * row->height;
}

static int lies_in_sample(const Row *row)
{
    return row->cut_w > 0 && row->cut_h > 0 && row->left < row->width && row->top < row->height &&
           row->left + row->cut_w > 0 && row->top + row->cut_h > 0;
}

static int is_copied(const Row *row, const uint8_t *out)
{
    for (int y = row->top; y < row->top + row->cut_h; y++) {
        for (int x = row->left; x < row->left + row->cut_w; x++, out += 3) {
            int is_inside = x >= 0 && x < row->width && y >= 0 && y < row->height;
            if (memcmp(out, is_inside ? row->data + 3 * (y * row->width + x) : FILL, 3) != 0)
                return 0;
        }
    }
    return 1;
}

/* With room for some rectangles that is a pixel too little, and for some with more than they need. */
static int copies(Painter *painter, const Row *rows, int num_rows, long *num_copied, long *num_left)
{
    int64_t starts[MOST_ROWS + 1] = {0};
    uint8_t is_done[MOST_ROWS];
    for (int i = 0; i < num_rows; i++) {
        int64_t room = rows[i].cut_w * rows[i].cut_h + below(4) - 1;
        starts[i + 1] = starts[i] + (room > 0 ? room : 0);
    }
    uint8_t *out = malloc(3 * (size_t)starts[num_rows]);
    feedrate_copy(painter, rows, num_rows, out, starts, is_done);
    int is_right = 1;
    for (int i = 0; i < num_rows; i++) {
        int fits = rows[i].cut_w * rows[i].cut_h <= starts[i + 1] - starts[i];
        is_right &= is_done[i] == (fits && is_whole(rows + i) && lies_in_sample(rows + i));
        is_right &= !is_done[i] || is_copied(rows + i, out + 3 * starts[i]);
        *num_copied += is_done[i];
        *num_left += !is_done[i];
    }
    free(out);
    return is_right;
}

static long resized(Painter *painter, int size, const Row *rows, int num_rows)
{
    long count = 0;
    uint8_t is_done[MOST_ROWS];
    uint8_t *out = malloc(3 * (size_t)num_rows * (size_t)size * (size_t)size);
    feedrate_paint(painter, rows, num_rows, out, is_done);
    for (int i = 0; i < num_rows; i++)
        count += is_done[i];
    free(out);
    return count;
}

int main(int count, char **words)
{
    long num_copied = 0, num_left = 0, num_resized = 0;
    for (int number = 0; count > 1 && number < atoi(words[1]); number++) {
        int size = 1 + below(48), num_rows = 1 + below(MOST_ROWS), is_right;
        Row rows[MOST_ROWS];
        for (int i = 0; i < num_rows; i++)
            rows[i] = any_row();
        StageRow *times = calloc(1, sizeof *times);
        Painter *painter = feedrate_new(size, FILL, number % 3, number / 3 % 2);
        feedrate_time(painter, below(2) ? times : NULL);
        is_right = copies(painter, rows, num_rows, &num_copied, &num_left);
        num_resized += resized(painter, size, rows, num_rows);
        feedrate_free(painter);
        free(times);
        for (int i = 0; i < num_rows; i++)
            free((void *)rows[i].data);
        if (!is_right) {
            printf("table %d: not the rectangles asked for\n", number);
            return 1;
        }
    }
    printf("%ld %ld %ld\n", num_copied, num_left, num_resized);
    return 0;
}
