/* Which source pixels an output pixel is the sum of, and with which weights, as Pillow has it. Read by pillow_resize.c. */
#ifndef PILLOW_TAPS_H
#define PILLOW_TAPS_H

#include "feedrate.h"

enum { PRECISION = 22 }; /* bits of a weight of 1 */

/* Output pixel i is the sum of `count` source pixels from `first` on, with weights [i * num_taps ...]. */
typedef struct {
    int num_taps; /* room for each pixel's weights; those beyond its count are 0 */
    int most;     /* the largest count */
    int *first, *count;
    int32_t *weights;
} Taps;

/* For `size` pixels made of `source`, in the buffer's memory. 0 if there is no memory. */
int taps_weigh(Taps *taps, Buffer *buffer, Filter filter, int source, int size);

#endif
