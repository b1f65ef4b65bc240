"""A till as of old, RSA alone: python classic.py [url] [shop] [message id]. Needs cryptography."""
import base64, json, random, secrets, sys, time
from datetime import date
from urllib.error import HTTPError
from urllib.request import Request, urlopen
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.hashes import SHA256

url = sys.argv[1].rstrip("/") if len(sys.argv) > 1 else "http://127.0.0.1:8080"
shop = sys.argv[2] if len(sys.argv) > 2 else "AMIS1"
# The day is the shop's own: the sale is booked on it, however late it comes.
message_id = sys.argv[3] if len(sys.argv) > 3 else f"{secrets.randbits(64)}-{date.today():%Y%m%d}"

def send(request):
    """Sends the same request until it is answered: when an answer is lost, it may have been a yes."""
    for _ in range(10):
        wait = 1
        try:
            with urlopen(request, timeout=30) as response:
                return response.status, json.load(response)
        except HTTPError as error:
            why, wait = f"{error.code} {error.read().decode()}", int(error.headers.get("Retry-After", 1))
            if error.code < 500 and error.code != 429:
                break  # the same request would be refused again
        except OSError as error:
            why = str(error)
        time.sleep(wait + random.random())  # chance keeps many tills from coming back at once
    sys.exit(why)

def number(text):
    """RFC 7518 section 6.3.1: big-endian, in base64url without padding; too much of it does no harm."""
    return int.from_bytes(base64.urlsafe_b64decode(text + "=="), "big")

_, jwk = send(Request(f"{url}/shop/{shop}/key"))
key = RSAPublicNumbers(e=number(jwk["e"]), n=number(jwk["n"])).public_key()
# Amounts may be JSON strings or numbers. As text here, because 18.95 in Python would be a float.
# OAEP takes 66 of the key's 256 bytes, so that 190 are left: a handful of lines at most.
sale = b"""{"sales":[{"item_no":"12345","gross_number":"2","gross_turnover":"4.98"},
{"item_no":98,"gross_number":1,"gross_turnover":18.95}]}"""
content = base64.b64encode(key.encrypt(sale, OAEP(MGF1(SHA256()), SHA256(), label=None))).decode()
body = json.dumps({"shop_id": shop, "message_id": message_id, "content_base64": content}).encode()
# No content type given, so urllib says it is a web form. Old tills do that; the shop must not mind.
answer = send(Request(f"{url}/shop", body))
if answer != (200, "OK"):
    sys.exit(f"unexpected: {answer}")
print(message_id)
