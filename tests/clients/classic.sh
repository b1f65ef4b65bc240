#!/usr/bin/env bash
# A till as of old, RSA alone: classic.sh [url] [shop] [message id]. Needs curl and openssl.
set -euo pipefail

url=${1:-http://127.0.0.1:8080}
shop=${2:-AMIS1}
# The day is the shop's own: the sale is booked on it, however late it comes.
id=${3:-$(od -An -N8 -tu8 /dev/urandom | tr -d ' ')-$(date +%Y%m%d)}
# Amounts may be JSON strings or numbers. OAEP takes 66 of the key's 256 bytes, so that 190 are left.
sale='{"sales":[{"item_no":"91279","gross_number":"0.5","gross_turnover":"7.45"},
{"item_no":90001,"gross_number":1,"gross_turnover":7.25}]}'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# Sends the same request until it is answered: when an answer is lost, it may have been a yes.
# No --fail: with it, curl would send again what the shop refuses for good.
send() { curl --silent --show-error --max-time 30 --retry 6 --retry-all-errors --output "$work/answer" "$@"; }

give_up() {
    echo "$1: $(<"$work/answer")" >&2
    exit 1
}

# A number of the JWK, which has it in base64url without padding, in hex, which asn1parse takes.
hex() {
    local text
    text=$(sed -n 's/.*"'"$1"'" *: *"\([^"]*\)".*/\1/p' "$work/answer" | tr '_-' '/+')
    while ((${#text} % 4)); do text+='='; done
    openssl base64 -d -A <<<"$text" | od -An -v -tx1 | tr -d ' \n'
}

send "${url%/}/shop/$shop/key"
grep -q '"kty"' "$work/answer" || give_up "no key"
cat >"$work/asn1" <<END
asn1 = SEQUENCE:key
[key]
algorithm = SEQUENCE:rsa
numbers = BITWRAP,SEQUENCE:numbers
[rsa]
name = OID:rsaEncryption
parameters = NULL
[numbers]
n = INTEGER:0x$(hex n)
e = INTEGER:0x$(hex e)
END
openssl asn1parse -genconf "$work/asn1" -out "$work/key" -noout
content=$(printf %s "$sale" | openssl pkeyutl -encrypt -pubin -inkey "$work/key" -keyform DER \
    -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -pkeyopt rsa_mgf1_md:sha256 | openssl base64 -A)

# The empty header is none at all: old tills name no content type, and the shop must not mind.
status=$(send --write-out '%{http_code}' --header 'Content-Type:' "${url%/}/shop" \
    --data "{\"shop_id\":\"$shop\",\"message_id\":\"$id\",\"content_base64\":\"$content\"}")
[[ $status == 200 && $(<"$work/answer") == '"OK"' ]] || give_up "$status"
echo "$id"
