/* What stages take, noted in memory that others read meanwhile: loaders/stage_writer.py does the same in Python. */
#include "feedrate.h"

#include <errno.h>
#include <time.h>

enum { FIRST_OCTAVE = 6, PARTS_BITS = 3, PAGE_BYTES = 4096 };

static int64_t now_ns(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int bucket_of(int64_t wall_ns)
{
    if (wall_ns < (1 << FIRST_OCTAVE))
        return 0;
    int octave = 63 - __builtin_clzll((unsigned long long)wall_ns);
    int bucket = (octave - FIRST_OCTAVE) * (1 << PARTS_BITS) + ((wall_ns >> (octave - PARTS_BITS)) & 7);
    return bucket < NUM_BUCKETS ? bucket : NUM_BUCKETS - 1;
}

/* A delay of the stage, if one is asked for: ns to wait, or, negative, of processor time to work for. */
static void obey(int64_t delay_ns)
{
    if (delay_ns > 0) {
        struct timespec left = {delay_ns / 1000000000, delay_ns % 1000000000};
        while (nanosleep(&left, &left) && errno == EINTR)
            ;
    } else if (delay_ns < 0) {
        int64_t end = now_ns(CLOCK_THREAD_CPUTIME_ID) - delay_ns;
        while (now_ns(CLOCK_THREAD_CPUTIME_ID) < end)
            ;
    }
}

/* Bytes of a row, to be compared with Python's. */
int64_t feedrate_stage_row_bytes(void)
{
    return (int64_t)sizeof(StageRow);
}

/* One passing of a stage, by `images` images (1 or 0); cpu_ns is negative where nobody looked. */
void feedrate_note(StageRow *row, int stage, int images, int64_t wall_ns, int64_t cpu_ns)
{
    StageSums *sums = row->stages + stage;
    sums->wall_ns += wall_ns;
    if (cpu_ns >= 0) {
        sums->sampled_count += images;
        sums->sampled_cpu_ns += cpu_ns;
    }
    if (images) {
        sums->count += images;
        sums->histogram[bucket_of(wall_ns)] += images;
    }
}

void clock_image(StageClock *clock)
{
    if (!clock->row)
        return;
    clock->num_laps = 0;
    clock->samples_cpu = --clock->until_cpu <= 0;
    if (clock->samples_cpu) {
        clock->until_cpu = CPU_EVERY_IMAGES;
        clock->cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID);
    }
    clock->wall_ns = now_ns(CLOCK_MONOTONIC);
}

void clock_lap(StageClock *clock, int stage, int has_passed)
{
    if (!clock->row)
        return;
    int64_t delay_ns = *(volatile int64_t *)(clock->row->delay + stage); /* others change it */
    if (delay_ns && has_passed)
        obey(delay_ns);
    StageLap *lap = clock->laps + clock->num_laps++;
    int64_t wall_ns = now_ns(CLOCK_MONOTONIC);
    *lap = (StageLap){stage, wall_ns - clock->wall_ns, -1};
    clock->wall_ns = wall_ns;
    if (clock->samples_cpu) {
        int64_t cpu_ns = now_ns(CLOCK_THREAD_CPUTIME_ID);
        lap->cpu_ns = cpu_ns - clock->cpu_ns;
        clock->cpu_ns = cpu_ns;
    }
}

void clock_add(StageClock *clock, int64_t wall_ns, int64_t cpu_ns)
{
    clock->wall_ns -= wall_ns;
    clock->cpu_ns -= cpu_ns;
}

void clock_done(StageClock *clock, int is_done)
{
    if (!clock->row)
        return;
    for (int i = 0; i < clock->num_laps; i++) {
        const StageLap *lap = clock->laps + i;
        feedrate_note(clock->row, lap->stage, is_done || lap->stage == STAGE_READ, lap->wall_ns, lap->cpu_ns);
    }
}

void touch_pages(const uint8_t *bytes, int64_t size)
{
    if (size < 1)
        return;
    for (int64_t at = 0; at < size; at += PAGE_BYTES)
        (void)*(volatile const uint8_t *)(bytes + at);
    (void)*(volatile const uint8_t *)(bytes + size - 1);
}
