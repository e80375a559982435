/* Seek points: places within a baseline JPEG's compressed data where decoding can begin, noted beside the file.
 *
 * Where a code begins is known once all before it have been looked up, so a window costs the codes of every row above it
 * and of every column left of it. A point says at which bit the next one begins, and what its DC coefficients are told
 * from; the file stays as it is. Of each row only the stretch that a window needs is read then. Points that are another
 * file's, or damaged, are not used; and wherever decoding passes one, both must agree. */
#include "jpeg_reader.h"

/* What is noted; numbers are little-endian. A point stands at the first unit of each row, and every so many units behind it. */
enum {
    AT_SPACING = 0,    /* u16: units from one point of a row to the next */
    AT_SCAN_BYTES = 2, /* u32: bytes of compressed data, up to the end marker */
    AT_COLUMNS = 6,    /* u16: units a row */
    AT_ROWS = 8,       /* u16: rows of units */
    AT_CHECK = 10,     /* u32: over all the rest of this, and the ends of the compressed data */
    AT_POINTS = 14,    /* row by row: u32 bits from the data's start (8 × bytes, stuffed ones included, plus bits within a
                          byte), 3 × i16 DC coefficients */
    POINT_BYTES = 10
};
/* Closer ones skip more and take more room: of ImageNet's photos they take 1.7 %, with half of it 3.2 % for 1 % more speed. */
enum { SPACING_PX = 128 };
enum { ENDS_BYTES = 256 };

static uint32_t little_endian(const uint8_t *bytes, int count)
{
    uint32_t value = 0;
    for (int i = 0; i < count; i++)
        value |= (uint32_t)bytes[i] << 8 * i;
    return value;
}

static void put(uint8_t *bytes, int count, uint32_t value)
{
    for (int i = 0; i < count; i++)
        bytes[i] = (uint8_t)(value >> 8 * i);
}

/* `sum`, and `size` bytes: eight by eight, as little-endian numbers, the last ones filled up with zeros. */
static uint64_t summed(uint64_t sum, const uint8_t *bytes, size_t size)
{
    while (size > 0) {
        size_t part = size < sizeof(uint64_t) ? size : sizeof(uint64_t);
        uint64_t word = 0;
        if (part == sizeof word)
            word = little_endian_64(bytes);
        else
            for (size_t i = 0; i < part; i++)
                word |= (uint64_t)bytes[i] << 8 * i;
        sum = (sum ^ word) * 0x9E3779B97F4A7C15u;
        sum ^= sum >> 32;
        bytes += part;
        size -= part;
    }
    return sum;
}

uint32_t seek_points_check(const uint8_t *noted, size_t size, const uint8_t *scan, size_t scan_bytes)
{
    size_t end = scan_bytes < ENDS_BYTES ? scan_bytes : ENDS_BYTES;
    uint64_t sum = summed(1, noted, AT_CHECK);
    sum = summed(sum, noted + AT_POINTS, size - AT_POINTS);
    return (uint32_t)summed(summed(sum, scan, end), scan + scan_bytes - end, end);
}

/* ---- reading them ---- */

/* The point at `number` of a row; behind the last of a row the next row's first, and behind all the end of the data. */
static SeekPoint point_at(const SeekPoints *seek, JDIMENSION num_rows, JDIMENSION row, unsigned number)
{
    SeekPoint point = {8 * (uint32_t)seek->scan_bytes, {0, 0, 0}};
    size_t index = (size_t)row * seek->per_row + number;
    if (index >= (size_t)num_rows * seek->per_row)
        return point;
    const uint8_t *bytes = seek->points + index * POINT_BYTES;
    point.position = little_endian(bytes, 4);
    for (int i = 0; i < 3; i++)
        point.dc[i] = (int16_t)little_endian(bytes + 4 + 2 * i, 2);
    return point;
}

int seek_points_use(struct jpeg_decompress_struct *info, const uint8_t *noted, size_t size, SeekPoints *seek)
{
    if (size < AT_POINTS || info->restart_interval)
        return 0;
    SeekPoints all = {noted + AT_POINTS, info->src->next_input_byte, little_endian(noted + AT_SCAN_BYTES, 4), 0, 0};
    all.spacing = little_endian(noted + AT_SPACING, 2);
    if (all.spacing == 0 || little_endian(noted + AT_COLUMNS, 2) != info->MCUs_per_row ||
        little_endian(noted + AT_ROWS, 2) != info->MCU_rows_in_scan)
        return 0;
    all.per_row = (info->MCUs_per_row + all.spacing - 1) / all.spacing;
    if (size - AT_POINTS != (size_t)info->MCU_rows_in_scan * all.per_row * POINT_BYTES)
        return 0;
    if (all.scan_bytes > UINT32_MAX / 8 || all.scan_bytes + 2 > info->src->bytes_in_buffer ||
        all.scan[all.scan_bytes] != 0xFF || all.scan[all.scan_bytes + 1] != JPEG_EOI ||
        seek_points_check(noted, size, all.scan, all.scan_bytes) != little_endian(noted + AT_CHECK, 4))
        return 0;
    *seek = all;
    return 1;
}

/* Take the bytes of the scan from one point up to another, as a stretch that begins there. */
static void take_stretch(
    j_decompress_ptr info, Buffer *bytes, const SeekPoint *from, const SeekPoint *to, Stretch *stretch)
{
    const SeekPoints *seek = &huffman_of(info)->seek;
    if (from->position >= to->position || to->position > 8 * seek->scan_bytes)
        jpeg_give_up(reader_of(info));
    const uint8_t *at = seek->scan + from->position / 8, *end = seek->scan + (to->position + 7) / 8;
    uint8_t *target = buffer_reserve(bytes, (size_t)(end - at) + HUFFMAN_SLACK);
    if (!target)
        jpeg_give_up(reader_of(info));
    stretch->cursor.in.bits = (uint64_t)*at << (56 + from->position % 8);
    stretch->cursor.in.num_bits = 8 - (int)(from->position % 8);
    stretch->cursor.in.at = target + 1;
    while (at < end) {
        const uint8_t *found = memchr(at, 0xFF, (size_t)(end - at));
        size_t size = (size_t)((found ? found + 1 : end) - at);
        memcpy(target, at, size);
        target += size;
        at += size + (found != NULL); /* 0xFF itself is followed by a 0 */
        if (found && found + 1 < end && found[1] != 0)
            jpeg_give_up(reader_of(info));
    }
    memset(target, 0, HUFFMAN_SLACK);
    stretch->end = target;
    for (int i = 0; i < 3; i++)
        stretch->last_dc[i] = from->dc[i];
}

/* How many of `size` bytes are followed by a stuffed one in the file. */
static size_t count_stuffed(const uint8_t *bytes, size_t size)
{
    size_t count = 0;
    for (const uint8_t *at = bytes, *end = bytes + size; at < end && (at = memchr(at, 0xFF, (size_t)(end - at))); at++)
        count++;
    return count;
}

/* Where decoding stands must be where a point says that it should be, and at the end of all data there. */
static void check_point(j_decompress_ptr info, const Stretch *stretch, const uint8_t *begin, SeekPoint from, SeekPoint point)
{
    int64_t used = -bits_left(&stretch->cursor.in, begin);
    int64_t left = bits_left(&stretch->cursor.in, stretch->end);
    size_t bytes = from.position / 8 + (size_t)(used / 8) + count_stuffed(begin, (size_t)(used / 8));
    int is_right = (uint32_t)(8 * bytes + (size_t)(used % 8)) == point.position;
    if (point.position == 8 * huffman_of(info)->seek.scan_bytes)
        is_right = left >= 0 && left < 8; /* the last byte is filled up with ones */
    else
        for (int i = 0; i < info->comps_in_scan; i++)
            is_right &= stretch->last_dc[i] == point.dc[i];
    if (!is_right)
        jpeg_give_up(reader_of(info));
}

/* Decode what is wanted of this row of units, and of the next, if something of that is wanted, too. */
static void read_ahead(j_decompress_ptr info, Huffman *huffman, JDIMENSION row)
{
    const SeekPoints *seek = &huffman->seek;
    const JDIMENSION num_rows = info->MCU_rows_in_scan, end = huffman->last_column + 1;
    const unsigned first = huffman->first_column / seek->spacing, last = huffman->last_column / seek->spacing;
    const int count = row + 1 < num_rows && row < huffman->last_row ? 2 : 1;
    const size_t row_blocks = (size_t)(end - first * seek->spacing) * (size_t)info->blocks_in_MCU;
    JBLOCK *blocks = buffer_reserve(&huffman->ahead, MOST_STRETCHES * row_blocks * sizeof(JBLOCK));
    if (!blocks)
        jpeg_give_up(reader_of(info));
    memset(blocks, 0, (size_t)count * row_blocks * sizeof(JBLOCK));
    Stretch stretches[MOST_STRETCHES];
    SeekPoint from[MOST_STRETCHES];
    for (int i = 0; i < count; i++) {
        from[i] = point_at(seek, num_rows, row + (JDIMENSION)i, first);
        SeekPoint to = point_at(seek, num_rows, row + (JDIMENSION)i, last + 1);
        take_stretch(info, &huffman->stretch_bytes[i], from + i, &to, stretches + i);
        stretches[i].number = 0;
        stretches[i].cursor.block = blocks[(size_t)i * row_blocks] - DCTSIZE2; /* the one before the first */
    }
    /* up to the last point that is passed, and then on */
    for (JDIMENSION at = first * seek->spacing, stop; at < end; at = stop) {
        stop = at < last * seek->spacing ? last * seek->spacing : end;
        for (int i = 0; i < count; i++)
            stretches[i].blocks_left = (int)(stop - at) * info->blocks_in_MCU;
        if (!huffman->decode_stretches(info, huffman, stretches, count))
            jpeg_give_up(reader_of(info));
        for (int i = 0; i < count && (stop % seek->spacing == 0 || stop == info->MCUs_per_row); i++)
            check_point(
                info,
                stretches + i,
                huffman->stretch_bytes[i].bytes,
                from[i],
                point_at(seek, num_rows, row + (JDIMENSION)i, (stop + seek->spacing - 1) / seek->spacing));
    }
    huffman->first_ahead = row;
    huffman->rows_ahead = (JDIMENSION)count;
}

boolean seeking_unit(j_decompress_ptr info, JBLOCKROW *blocks)
{
    Huffman *huffman = huffman_of(info);
    const JDIMENSION row = huffman->row, column = huffman->column;
    next_column(info, huffman);
    if (!blocks || column < huffman->first_column || column > huffman->last_column)
        return TRUE;
    if (column == huffman->first_column && row - huffman->first_ahead >= huffman->rows_ahead)
        read_ahead(info, huffman, row);
    const JDIMENSION begin = huffman->first_column - huffman->first_column % huffman->seek.spacing;
    size_t unit = (size_t)(row - huffman->first_ahead) * (huffman->last_column + 1 - begin) + (column - begin);
    JBLOCK *ahead = (JBLOCK *)huffman->ahead.bytes + unit * (size_t)info->blocks_in_MCU;
    for (int i = 0; i < info->blocks_in_MCU; i++)
        blocks[i] = ahead + i; /* libjpeg's own pointers, set again for each unit: nothing is copied */
    return TRUE;
}

/* ---- making them ---- */

/* Decode all codes of a file that has been started, and note the points. Returns their bytes, 0 where it can have none. */
static size_t note_points(JpegReader *reader, unsigned wanted, uint8_t *out, size_t room)
{
    struct jpeg_decompress_struct *info = &reader->info;
    Huffman *huffman = &reader->huffman;
    const uint8_t *scan = info->src->next_input_byte;
    const JDIMENSION columns = info->MCUs_per_row, rows = info->MCU_rows_in_scan;
    const unsigned spacing = wanted ? wanted : SPACING_PX / unit_width(info);
    const size_t num_points = (size_t)rows * ((columns + spacing - 1) / spacing);
    if (info->restart_interval || AT_POINTS + num_points * POINT_BYTES > room ||
        !huffman_take_over(info, huffman, 0, info->image_width, NULL, 0))
        return 0;
    const uint8_t *begin = huffman->bytes.bytes;
    size_t counted = 0, num_stuffed = 0;
    uint8_t *point = out + AT_POINTS;
    for (size_t i = 0; i < (size_t)rows * columns; i++) {
        if (huffman->column % spacing == 0) {
            size_t used = (size_t)-bits_left(&huffman->in, begin);
            num_stuffed += count_stuffed(begin + counted, used / 8 - counted);
            counted = used / 8;
            put(point, 4, (uint32_t)(used + 8 * num_stuffed));
            for (int part = 0; part < 3; part++) {
                int dc = part < info->comps_in_scan ? huffman->last_dc[part] : 0;
                if (dc != (int16_t)dc)
                    return 0;
                put(point + 4 + 2 * part, 2, (uint32_t)dc);
            }
            point += POINT_BYTES;
        }
        huffman->decode_unit(info, NULL);
    }
    const uint8_t *end = info->src->next_input_byte;
    if (bits_left(&huffman->in, huffman->end) > 7 || end[1] != JPEG_EOI || (size_t)(end - scan) > UINT32_MAX / 8)
        return 0;
    put(out + AT_SPACING, 2, spacing);
    put(out + AT_SCAN_BYTES, 4, (uint32_t)(end - scan));
    put(out + AT_COLUMNS, 2, columns);
    put(out + AT_ROWS, 2, rows);
    put(out + AT_CHECK, 4, seek_points_check(out, (size_t)(point - out), scan, (size_t)(end - scan)));
    return (size_t)(point - out);
}

/* Note the seek points of a JPEG in `out`, so many units apart, or as many as is usual (0). Returns their bytes; 0 where
 * there can be none: for all but baseline files without restart markers, for what does not fit into `room`, and for what
 * is damaged anywhere. */
int64_t feedrate_seek_points(const uint8_t *jpeg, int64_t size, int spacing, uint8_t *out, int64_t room)
{
    JpegReader *volatile reader = size >= 4 ? jpeg_reader_new() : NULL;
    volatile size_t noted = 0;
    if (!reader)
        return 0;
    if (!setjmp(reader->escape)) {
        jpeg_reader_open(reader, jpeg, (size_t)size);
        if (!jpeg_has_multiple_scans(&reader->info)) { /* of which starting would decode all */
            jpeg_start_decompress(&reader->info);
            noted = note_points(reader, (unsigned)spacing, out, (size_t)room);
        }
    }
    jpeg_reader_free(reader);
    return (int64_t)noted;
}
