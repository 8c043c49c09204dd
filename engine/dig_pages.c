#include "engine/dig_control.h"

struct shared *dig_page_get(struct dig_control *dc, enum dig_page page, bool full)
{
    (void)dc, (void)page, (void)full;
    return NULL;
}
