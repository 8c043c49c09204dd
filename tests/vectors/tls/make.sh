#!/bin/sh
# tests/vectors/tls/make.sh: keys and certificates of tests/unit/test_tls*.c, by openssl alone. ids.txt
# has what dig.md §12 asks for, computed by openssl: SHA-256 of each SubjectPublicKeyInfo. They are
# checked in; run this only to have other ones. Nobody asks for dates: most end in 2126, one is past.
set -eu
cd "$(dirname "$0")"
rm -f ./*.pem ./*.key ids.txt

key() { # NAME OPTIONS...
    name=$1
    shift
    openssl genpkey -quiet -out "$name.key" "$@" 2>/dev/null ||
        openssl genpkey -out "$name.key" "$@" 2>/dev/null
}
self() { # NAME: a certificate by its own key
    name=$1
    shift
    openssl req -new -x509 -key "$name.key" -subj "/CN=$name" -days 36500 -out "$name.pem" "$@"
}

for curve in P-256 P-384 P-521; do
    name=p${curve#P-}
    key "$name" -algorithm EC -pkeyopt "ec_paramgen_curve:$curve"
    self "$name"
done
key ed25519 -algorithm ED25519
self ed25519
key rsa2048 -algorithm RSA -pkeyopt rsa_keygen_bits:2048
self rsa2048
key rsa4096 -algorithm RSA -pkeyopt rsa_keygen_bits:4096
self rsa4096
key rsa8192 -algorithm RSA -pkeyopt rsa_keygen_bits:8192
self rsa8192
# The same keys in the older spellings, with what openssl writes before them.
openssl rsa -in rsa2048.key -traditional -out rsa2048-pkcs1.key 2>/dev/null
{ openssl ecparam -name prime256v1 && openssl ec -in p256.key 2>/dev/null; } >p256-sec1.key
openssl pkey -in p256.key -aes128 -passout pass:secret -out encrypted.key

# Keys that are not for us: too short, an exponent as long as a key, a curve nobody uses.
key rsa1024 -algorithm RSA -pkeyopt rsa_keygen_bits:1024
self rsa1024
key exponent -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -pkeyopt rsa_keygen_pubexp:1208925819614629174706189
self exponent
key k256 -algorithm EC -pkeyopt ec_paramgen_curve:secp256k1
self k256

printf 'basicConstraints=CA:FALSE\nsubjectAltName=DNS:leaf\n' >leaf.ext
# What is no concern of ours: usage, dates, and a chain.
key usage -algorithm EC -pkeyopt ec_paramgen_curve:P-256
self usage -addext keyUsage=critical,keyEncipherment -addext extendedKeyUsage=serverAuth
key past -algorithm EC -pkeyopt ec_paramgen_curve:P-256
openssl req -new -key past.key -subj /CN=past -out past.csr
openssl x509 -req -in past.csr -signkey past.key -days -1 \
    -extfile leaf.ext -out past.pem 2>/dev/null
key root -algorithm RSA -pkeyopt rsa_keygen_bits:2048
self root
key middle -algorithm EC -pkeyopt ec_paramgen_curve:P-256
openssl req -new -key middle.key -subj /CN=middle -out middle.csr
printf 'basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n' >ca.ext
openssl x509 -req -in middle.csr -CA root.pem -CAkey root.key -CAcreateserial -days 36500 \
    -extfile ca.ext -out middle.pem 2>/dev/null
key leaf -algorithm EC -pkeyopt ec_paramgen_curve:P-256
openssl req -new -key leaf.key -subj /CN=leaf -out leaf.csr
openssl x509 -req -in leaf.csr -CA middle.pem -CAkey middle.key -CAcreateserial -days 36500 \
    -extfile leaf.ext -out leaf.pem 2>/dev/null
cat leaf.pem middle.pem root.pem >chain.pem
cp leaf.key chain.key
# A leaf whose key is not for us, with a chain above it.
openssl req -new -key k256.key -subj /CN=k256 -out k256.csr
openssl x509 -req -in k256.csr -CA middle.pem -CAkey middle.key -CAcreateserial -days 36500 \
    -extfile leaf.ext -out badleaf.pem 2>/dev/null
cat badleaf.pem middle.pem root.pem >badchain.pem
cp k256.key badchain.key
# Version 1 has no extensions.
openssl req -new -key p256.key -subj /CN=v1 -out v1.csr
openssl x509 -req -in v1.csr -signkey p256.key -days 36500 -out v1.pem 2>/dev/null
cp p256.key v1.key

rm -f ./*.csr ./*.ext ./*.srl badleaf.pem
rm -f leaf.key root.key middle.key root.pem middle.pem leaf.pem # in chain.pem, with chain.key
for cert in *.pem; do
    openssl x509 -in "$cert" -noout -pubkey | openssl pkey -pubin -outform DER |
        openssl dgst -sha256 -r | awk -v n="${cert%.pem}" '{ print n, $1 }'
done >ids.txt
