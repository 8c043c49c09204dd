/* proto/baseenc.h: the text alphabets of multibase that peer ids, certhash and onion3 use:
 * base58btc, base36 and base32 in lower case, base64url (multiformats multibase). No padding, no
 * prefix character: the caller reads that. Pure. Errors: a decoder answers false for a foreign
 * character, for a tail that no encoder writes, and for input past BASE_TEXT_MAX; it sets w->bad
 * when the bytes do not fit, and answers false. Encoders set w->bad. */
#ifndef SLUICE_PROTO_BASEENC_H
#define SLUICE_PROTO_BASEENC_H

#include "proto/cur.h"

enum {
    BASE_TEXT_MAX = 256,  /* characters */
    BASE_BYTES_MAX = 128, /* bytes */
};

bool base58_decode(struct wcur *w, struct bytes text);
void base58_encode(struct wcur *w, struct bytes in);
bool base36_decode(struct wcur *w, struct bytes text);
bool base32_decode(struct wcur *w, struct bytes text);
void base32_encode(struct wcur *w, struct bytes in);
bool base64url_decode(struct wcur *w, struct bytes text);
void base64url_encode(struct wcur *w, struct bytes in);
void base64_encode(struct wcur *w, struct bytes in); /* the standard alphabet, padded with '=' */
/* I2P's base64 with `-~` for the last two digits, padded with '=' to a multiple of four. */
bool base64i2p_decode(struct wcur *w, struct bytes text);
void base64i2p_encode(struct wcur *w, struct bytes in);

#endif
