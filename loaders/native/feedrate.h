/* What the files of the native kernel share. Everything here gives the bits of OpenCV's INTER_AREA or Pillow's BILINEAR or
 * BICUBIC, and of a whole JPEG decoded by libjpeg-turbo, or says that it cannot: then the caller asks those. Of damaged
 * JPEGs with seek points it may give the right pixels of places that a whole decode no longer has. */
#ifndef FEEDRATE_H
#define FEEDRATE_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define HAS_AVX2_CODE 1
#define AVX2 __attribute__((target("avx2")))
#else
#define HAS_AVX2_CODE 0
#endif

/* One image to make; loaders/native/kernel.py has the same layout. */
typedef struct {
    const uint8_t *data; /* pixels, uint8 RGB row by row, or an encoded image */
    int64_t size;        /* bytes of data */
    const uint8_t *seek; /* what is noted of its seek points (seek_points.c), NULL where nothing is */
    int64_t seek_bytes;  /* of that */
    int32_t width, height;           /* of the sample, as recorded */
    int32_t left, top, cut_w, cut_h; /* rectangle in the sample's pixels; may reach past its border */
    int32_t is_raw, flip;
    int64_t read_wall_ns, read_cpu_ns; /* what it took to get at data, for the image's times; -1: it was not stored */
} Row;

/* Memory that grows and is kept. */
typedef struct {
    void *bytes;
    size_t size;
} Buffer;

/* At least `size` bytes, aligned to 64, with what they held lost; NULL if there is no such memory. */
void *buffer_reserve(Buffer *buffer, size_t size);
void buffer_free(Buffer *buffer);

/* uint8 RGB pixels somewhere in memory. */
typedef struct {
    const uint8_t *first; /* of the upper left pixel */
    ptrdiff_t stride;     /* bytes from row to row */
    int width, height;
} Pixels;

/* ---- area_resize.c, linear_resize.c, pillow_resize.c: one square output size each ---- */

/* Whose bits: OpenCV's INTER_AREA, Pillow's BILINEAR, Pillow's BICUBIC. Numbers as kernel.py has them. */
typedef enum { AREA = 0, BILINEAR = 1, BICUBIC = 2 } Filter;

typedef struct {
    int size;          /* side of the output */
    int use_avx2;
    Buffer columns;    /* per output column: where it reads, with which weights */
    Buffer rows;       /* the same per output row */
    Buffer groups;     /* the columns arranged for vector instructions */
    Buffer sums;       /* source rows already resized horizontally */
} Resizer;

/* Bits of cv2.resize(INTER_AREA), mirrored if `flip`, into uint8 [size, size, 3]. 1 if done, 0: ask OpenCV. */
int resize_area(Resizer *resizer, Pixels source, int flip, uint8_t *out);
/* The part of it for which OpenCV turns to bilinear interpolation: one side or both grow. */
int resize_linear(Resizer *resizer, Pixels source, int flip, uint8_t *out);
/* Bits of Pillow's resize(BILINEAR or BICUBIC), mirrored if `flip`, into uint8 [size, size, 3]. 1 if done, 0: ask Pillow. */
int resize_pillow(Resizer *resizer, Filter filter, Pixels source, int flip, uint8_t *out);
void resizer_free(Resizer *resizer);

/* ---- restarts.c ---- */

/* Memory that cutting needs. */
typedef struct {
    Buffer bytes, starts;
} Cutter;

/* Part of a JPEG, as a JPEG of its own, and which of the whole's pixels it has. */
typedef struct {
    const uint8_t *data; /* in the cutter's memory, until its next call */
    size_t size;
    int left, top, width, height;
    int whole_w, whole_h; /* of the whole */
} Cut;

/* Cut out what window, (left, top, right, bottom), needs: within it, the part decodes to the bits of the whole. 1 if done;
 * 0 where the file cannot be cut: without restart markers that fit its rows, cut short, or damaged between them. */
int restarts_cut(Cutter *cutter, const uint8_t *jpeg, size_t size, const int window[4], Cut *cut);
void cutter_free(Cutter *cutter);

/* ---- stages.c: what loaders/stage_writer.py does in Python, with the same layout, which the self-check tests ---- */

enum { STAGE_READ, STAGE_DECODE, STAGE_AUGMENT }; /* the stages that happen here, of LOADER_STAGES */
enum { NUM_BUCKETS = 256, CPU_EVERY_IMAGES = 8, MAX_LAPS = 3 };

typedef struct {
    int64_t count, sampled_count, wall_ns, sampled_cpu_ns;
    int64_t histogram[NUM_BUCKETS];
} StageSums;

/* One thread's; it alone writes here, but for the delays. */
typedef struct {
    int64_t delay[8];
    StageSums stages[8];
} StageRow;

typedef struct {
    int stage;
    int64_t wall_ns, cpu_ns;
} StageLap;

/* Times the stages of one image after the other. */
typedef struct {
    StageRow *row; /* NULL: nothing is timed, and nothing below does anything */
    int until_cpu; /* images until processor time is read again */
    int samples_cpu, num_laps;
    int64_t wall_ns, cpu_ns; /* when the stage under way began */
    StageLap laps[MAX_LAPS];
} StageClock;

void clock_image(StageClock *clock);                     /* an image begins, and its first stage */
void clock_add(StageClock *clock, int64_t wall_ns, int64_t cpu_ns); /* the stage under way began so much earlier */
/* The stage under way ends, after the delay that is asked for if the image has passed it, and the next begins. */
void clock_lap(StageClock *clock, int stage, int has_passed);
void clock_done(StageClock *clock, int is_done);         /* notes its stages; all but reading again if not done */
/* Look at every page, so that what lies in a file is read now. */
void touch_pages(const uint8_t *bytes, int64_t size);

/* ---- jpeg_window.c ---- */

typedef struct JpegReader JpegReader;
struct jpeg_decompress_struct;

/* Whether all bits of all coefficients have been read, but for baseline files, which are always taken to be complete. Where
 * a progressive file leaves out the last bits, decoders smooth over blocks. */
int is_complete(const struct jpeg_decompress_struct *info);

JpegReader *jpeg_reader_new(void);
void jpeg_reader_free(JpegReader *reader);
/* The pixels within window, (left, top, right, bottom), of the JPEG in row->data, as a whole decode gives them; they lie
 * in the reader's memory until its next call. 1 if done; 0 for all that is not quite as expected: then a decoder that
 * knows what to say of it must be asked. */
int jpeg_window(JpegReader *reader, const Row *row, const int window[4], Pixels *pixels);

#endif
