"""A till that seals its sale, and signs it if it has a key: python sealed.py [url] [shop] [key]. Needs jwcrypto."""
import json, random, secrets, sys, time, uuid
from datetime import datetime, timezone
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from jwcrypto.jwe import JWE
from jwcrypto.jwk import JWK
from jwcrypto.jws import JWS

url = sys.argv[1].rstrip("/") if len(sys.argv) > 1 else "http://127.0.0.1:8080"
shop = sys.argv[2] if len(sys.argv) > 2 else "AMIS1"

def send(request):
    """Sends the same request until it is answered: when an answer is lost, it may have been a yes."""
    for _ in range(10):
        wait = 1
        try:
            with urlopen(request, timeout=30) as response:
                return response.status, json.load(response)
        except HTTPError as error:
            answer, after = error.read(65536), error.headers.get("Retry-After", "")
            why, wait = f"{error.code} {answer.decode(errors='replace')}", min(int(after), 300) if after.isdecimal() else 1
            if any(f'"urn:kassa:problem:{final}"'.encode() in answer for final in ("malformed", "unknown-shop", "too-large")):
                break  # the same request would be refused again; whatever says anything else may not even be the shop
        except OSError as error:
            why = str(error)
        time.sleep(wait + random.random())  # chance keeps many tills from coming back at once
    sys.exit(why)

def uuid7():
    """RFC 9562: milliseconds, then chance. Python has its own only since 3.14."""
    bits = time.time_ns() // 1_000_000 << 80 | secrets.randbits(80)
    return str(uuid.UUID(int=bits & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62))

_, jwk = send(Request(f"{url}/shop/{shop}/key"))
sale_id = uuid7()
# The id stands inside, too, where nobody can change it. A real till's seq counts on.
sale = {"sale_id": sale_id, "shop_id": shop, "till": "till-1", "seq": 1, "sold_at": datetime.now(timezone.utc).isoformat(),
        # Amounts as text: then no JSON library on the way makes floats of them.
        "sales": [{"item_no": "12345", "gross_number": "3", "gross_turnover": "7.47"}]}
content = json.dumps(sale)
if len(sys.argv) > 3:  # the till's own key, an Ed25519 JWK: what it signs, nobody else can have made
    signed = JWS(content)
    signed.add_signature(JWK.from_json(open(sys.argv[3]).read()), protected={"alg": "EdDSA", "kid": sale["till"]})
    content = signed.serialize(compact=True)
header = {"alg": "RSA-OAEP-256", "enc": "A256GCM", "kid": jwk["kid"]}
sealed = JWE(content, protected=header, recipient=JWK(**jwk)).serialize(compact=True)
body = json.dumps({"shop_id": shop, "message_id": sale_id, "sealed": sealed}).encode()
answer = send(Request(f"{url}/shop", body, {"Content-Type": "application/json"}))
if answer != (202, {"sale_id": sale_id, "status": "accepted"}):
    sys.exit(f"unexpected: {answer}")
print(sale_id)
