/* A cursor over the text of a kernel file: lines, and the fields of a line.
 *
 * Spans are [at, end) into the caller's buffer; nothing is copied or terminated.
 */
#ifndef ESNODE_SCAN_H
#define ESNODE_SCAN_H

#include <stdint.h>
#include <string.h>

typedef struct {
    const char *at, *end;
} span;

/* Takes the next line, without its newline, off *text. Returns 0 when no whole line is left: a
 * last line without a newline was cut short, and its last number with it. */
static inline int scan_line(span *text, span *line) {
    if (text->at >= text->end)
        return 0;
    const char *newline = memchr(text->at, '\n', (size_t)(text->end - text->at));
    if (!newline)
        return 0;
    line->at = text->at;
    line->end = newline;
    text->at = newline + 1;
    return 1;
}

static inline int scan_blank(char c) {
    return c == ' ' || c == '\t';
}

/* Takes the next field, delimited by blanks, off *line. Returns 0 when there is none. */
static inline int scan_field(span *line, span *field) {
    const char *at = line->at, *end = line->end;
    while (at < end && scan_blank(*at))
        at++;
    if (at == end)
        return 0;
    field->at = at;
    while (at < end && !scan_blank(*at))
        at++;
    field->end = line->at = at;
    return 1;
}

/* Takes the text before the last `mark` of *line, without blanks around it, off *line. Returns 0
 * when the mark is missing, or nothing stands before it. */
static inline int scan_until_last(span *line, char mark, span *field) {
    const char *at = line->at, *end = line->end;
    while (end > at && end[-1] != mark)
        end--;
    if (end == at)
        return 0;
    line->at = end--;
    while (at < end && scan_blank(*at))
        at++;
    while (end > at && scan_blank(end[-1]))
        end--;
    field->at = at;
    field->end = end;
    return at < end;
}

/* Moves *field behind its first `mark`; without the mark, or with nothing behind it, it stays. */
static inline void scan_after(span *field, char mark) {
    const char *at = memchr(field->at, mark, (size_t)(field->end - field->at));
    if (at && at + 1 < field->end)
        field->at = at + 1;
}

#endif
