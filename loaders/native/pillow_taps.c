/* Pillow's weights: its filters, precompute_coeffs and normalize_coeffs_8bpc, operation for operation. */
#include "pillow_taps.h"

#include <string.h>

/* Pillow's bicubic_filter, Keys' with a = -1/2; it comes to 0 at a distance of 2. */
static double cubic(double distance)
{
    const double a = -0.5;
    if (distance < 1.0)
        return ((a + 2.0) * distance - (a + 3.0)) * distance * distance + 1.0;
    return distance < 2.0 ? (((distance - 5.0) * distance + 8.0) * distance - 4.0) * a : 0.0;
}

static double triangle(double distance)
{
    return distance < 1.0 ? 1.0 - distance : 0.0;
}

/* Weights may be negative: half a part more away from 0, and cut. */
static int32_t rounded(double weight)
{
    return (int32_t)(weight < 0 ? weight * (1 << PRECISION) - 0.5 : weight * (1 << PRECISION) + 0.5);
}

int taps_weigh(Taps *taps, Buffer *buffer, Filter filter, int source, int size)
{
    double scale = (double)source / size, stretch = scale < 1.0 ? 1.0 : scale, inverse = 1.0 / stretch;
    double support = (filter == BICUBIC ? 2.0 : 1.0) * stretch;
    taps->num_taps = 2 * ((int)support + 1) + 1;
    size_t num_taps = (size_t)taps->num_taps, length = (size_t)size;
    double *parts = buffer_reserve(buffer, num_taps * 8 + length * (8 + 4 * num_taps));
    if (!parts)
        return 0;
    taps->weights = (int32_t *)(parts + num_taps);
    taps->first = taps->weights + length * num_taps;
    taps->count = taps->first + size;
    taps->most = 1;
    memset(taps->weights, 0, 4 * length * num_taps);
    for (int i = 0; i < size; i++) {
        double center = (i + 0.5) * scale, total = 0.0;
        int first = (int)(center - support + 0.5), end = (int)(center + support + 0.5);
        first = first < 0 ? 0 : first;
        int count = (end > source ? source : end) - first;
        for (int t = 0; t < count; t++) {
            double distance = (t + first - center + 0.5) * inverse;
            distance = distance < 0.0 ? -distance : distance;
            parts[t] = filter == BICUBIC ? cubic(distance) : triangle(distance);
            total += parts[t];
        }
        int32_t *weights = taps->weights + (size_t)i * num_taps;
        for (int t = 0; t < count; t++)
            weights[t] = rounded(total != 0.0 ? parts[t] / total : parts[t]);
        while (count > 1 && !weights[count - 1])
            count--;
        taps->first[i] = first;
        taps->count[i] = count;
        taps->most = count > taps->most ? count : taps->most;
    }
    return 1;
}
