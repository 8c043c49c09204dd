#!/bin/bash
# proto/ allocates nothing, reads no clock, opens no socket, draws no random number and keeps no
# state of its own. Checked, not hoped for: whatever libproto.a leaves to others must be on this list,
# and it has no writable section.
#   tests/purity.sh LIBPROTO.A
set -euo pipefail
export LC_ALL=C
lib=$1

# Each line: the object file's base name (`any` for all), then the symbols it may ask for.
allowed() {
    cat <<-'LIST'
	any bcmp memchr memcmp memcpy memmove memset strchr strcmp strlen strncmp _GLOBAL_OFFSET_TABLE_
	any pb_.*
	base abort write
	crypto sodium_init sodium_memcmp sodium_memzero wolfCrypt_Init
	crypto crypto_(aead|auth|hash|scalarmult|shorthash|sign)_.* crypto_(shorthash|hash_sha256)
	crypto EVP_(Encrypt|Decrypt)(Init_ex2|Update|Final_ex) EVP_CIPHER_CTX_ctrl
	crypto EVP_CIPHER_(fetch|free) EVP_CIPHER_CTX_(new|free) CRYPTO_(zalloc|free)
	crypto_hmac wc_(Hmac(Init|SetKey|Update|Final|Free)|(Init)?(Md5|Sha256)(Update|Final|Free)?)
	crypto_hmac SHA1_(Init|Update|Final)
	crypto_verify EVP_PKEY_.* EVP_MD_CTX_(new|free) EVP_DigestVerify(Init)? EVP_sha256
	crypto_verify OSSL_PARAM_construct_.* ERR_clear_error
	crypto_verify wc_(Init|Free)RsaKey wc_RsaPublicKeyDecodeRaw wc_RsaSSL_VerifyInline
	crypto_verify wc_ecc_(init|free|import_x963_ex|check_key|verify_hash)
	dusk_cbor cbor_stream_decode
	dig yyjson_(alc_pool_init|read_opts)
	gossip_fed yyjson_(alc_pool_init|read_opts)
	dig_scan_run __cpu_model
	LIST
}
# aead_new and aead_free, once per thread at start-up, are the only callers of an allocator by name;
# what the libraries allocate while they verify a signature is theirs, once per handshake. yyjson has
# an allocator of its own, which it is never left to: dig gives it the caller's pool. __cpu_model is what
# the compiler's library found out about the processor before main(): read, never written.

# What compilers put in by themselves: sanitizers, coverage, hardening.
readonly BUILT_IN='__(asan|ubsan|tsan|msan|sanitizer|sancov|gcov|llvm|stack_chk|tls_get_addr)_?.*|_?_?(mem|str)[a-z]*_chk'

rules=$(allowed | while read -r object symbols; do
    for s in $symbols; do
        [[ $object == any ]] && printf '^[^ ]+ %s$\n' "$s" || printf '^%s %s$\n' "$object" "$s"
    done
done)
inside=$(nm --defined-only "$lib" 2>/dev/null | sed -n 's/.* [A-Zuvw] //p' | sort -u)
asked=$(nm -A -u "$lib" 2>/dev/null |
    sed -nE 's/^.*[:\/]([^:\/]+)\.c\.o: +[Uwv] ([^@]+).*$/\1 \2/p' | sort -u)
[[ -n $inside && -n $asked ]] || { echo "purity: nm tells nothing about $lib"; exit 1; }

foreign=$(awk 'NR == FNR { own[$1]; next } !($2 in own)' <(echo "$inside") <(echo "$asked") |
    grep -vE " ($BUILT_IN)$" | grep -vE -f <(echo "$rules") || true)
if [[ -n $foreign ]]; then
    echo "purity: proto/ asks for what is not on the list of $0 (file, symbol):"
    echo "$foreign"
    exit 1
fi

# Instrumented builds keep counters and shadows of their own.
if ! grep -qE '^[^ ]+ __(asan|tsan|gcov|llvm|sanitizer)_' <(echo "$asked"); then
    writable=$(size -A "$lib" 2>/dev/null | awk '/:$/ { file = $1 } /^\.(data|bss|tdata|tbss)[ .]/ && $1 !~ /^\.data\.rel\.ro/ && $2 > 0 { print file, $1, $2 }')
    if [[ -n $writable ]]; then
        echo "purity: proto/ has state of its own (file, section, bytes):"
        echo "$writable"
        exit 1
    fi
fi
echo "purity: $(wc -l <<<"$asked") references, all on the list"
