/* ASSERT, views and the intrusive list. */
#include "proto/list.h"

#include <criterion/criterion.h>
#include <criterion/new/assert.h>
#include <criterion/redirect.h>
#include <signal.h>

Test(assert, names_file_line_and_condition_then_aborts, .signal = SIGABRT,
     .init = cr_redirect_stderr)
{
    ASSERT(1 + 1 == 3);
}

Test(assert, lets_a_true_condition_pass)
{
    ASSERT(1 + 1 == 2);
}

Test(bytes, compares_by_length_and_content)
{
    cr_expect(bytes_eq(bytes_str("ab"), bytes_str("ab")));
    cr_expect(not(bytes_eq(bytes_str("ab"), bytes_str("abc"))));
    cr_expect(not(bytes_eq(bytes_str("ab"), bytes_str("ac"))));
    cr_expect(bytes_eq(bytes_str(""), (struct bytes){ 0 }), "empty is empty, wherever it points");
}

Test(bytes, min_takes_the_smaller)
{
    cr_expect(min_sz(1, 2) == 1 && min_sz(2, 1) == 1);
    cr_expect(min_u64(UINT64_MAX, 0) == 0 && min_u64(3, UINT64_MAX) == 3);
}

struct item {
    int value;
    struct link link;
};

static int value_of(struct link *k)
{
    return k ? CONTAINER_OF(k, struct item, link)->value : -1;
}

Test(list, keeps_order_and_count)
{
    struct list l = { 0 };
    struct item it[4] = { { .value = 0 }, { .value = 1 }, { .value = 2 }, { .value = 3 } };

    cr_expect(list_pop(&l) == NULL);
    for (int i = 0; i < 4; i++) {
        cr_expect(not(link_in_list(&l, &it[i].link)));
        list_append(&l, &it[i].link);
        cr_expect(link_in_list(&l, &it[i].link));
    }
    cr_expect(eq(sz, l.count, 4));
    list_remove(&l, &it[1].link); /* from the middle */
    cr_expect(not(link_in_list(&l, &it[1].link)));
    list_remove(&l, &it[3].link); /* the last */
    cr_expect(value_of(l.last) == 2 && l.last->next == NULL);
    cr_expect(value_of(list_pop(&l)) == 0);
    cr_expect(value_of(l.first) == 2 && l.first->prev == NULL);
    list_append(&l, &it[1].link);
    cr_expect(value_of(list_pop(&l)) == 2);
    cr_expect(value_of(list_pop(&l)) == 1);
    cr_expect(list_pop(&l) == NULL && l.count == 0 && l.last == NULL);
}

Test(list, refuses_an_element_that_is_in_it_already, .signal = SIGABRT, .init = cr_redirect_stderr)
{
    struct list l = { 0 };
    struct item one = { 0 };

    list_append(&l, &one.link);
    list_append(&l, &one.link);
}
