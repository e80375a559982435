/* How area_resize.c and area_columns.c share the work. */
#ifndef FEEDRATE_AREA_H
#define FEEDRATE_AREA_H

#include "feedrate.h"

/* Output pixel i is the sum of `count` source pixels from `first` on, with weights [i * num_taps ...]. */
typedef struct {
    int num_taps; /* room for each pixel's weights; those beyond its count are 0 */
    int most;     /* the largest count */
    int *first, *count;
    float *weights;
} Taps;

/* OpenCV's weights for shrinking `source` pixels to `size`. 0 if there is no memory. */
int make_taps(Taps *taps, Buffer *buffer, int source, int size);

/* Source rows to float [3 * size] sums, by `taps`; arranged for vector instructions if the processor has them. */
typedef struct {
    const Taps *taps;
    int size, flip;
    int num_taps, num_lanes; /* of the arrangement; num_taps 0: there is none */
    int lanes_a_load, loads; /* 4 consecutive values from one load, or a pixel (and an idle lane) from one or more */
    int *offsets;            /* [loads][num_lanes / 4], bytes into the row */
    uint32_t *shuffles;      /* [loads][num_lanes] */
    float *weights;          /* [num_taps][num_lanes] */
} Columns;

enum { SUMS_SLACK = 8 }; /* values that columns_sum may write behind the last */

void columns_make(Columns *columns, const Taps *taps, Resizer *resizer, int flip, int row_bytes);
void columns_sum(const Columns *columns, const uint8_t *row, float *sums);

#endif
