/* tools/ctl_show.h: what a daemon says, as tables for people. */
#ifndef SLUICE_TOOLS_CTL_SHOW_H
#define SLUICE_TOOLS_CTL_SHOW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

bool ctl_is_list(const char *command);
void ctl_show_head(const char *command);
void ctl_show_row(const char *command, const char *json);
/* The last line, of a command that went well. */
void ctl_show_end(const char *command, const char *json);

/* For people: "1.5 MiB", "2h03m". Both give `out`; 16 bytes suffice. */
const char *ctl_size_text(uint64_t v, char *out, size_t cap);
const char *ctl_age_text(uint64_t s, char *out, size_t cap);

#endif
