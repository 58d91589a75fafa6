"""Makes tokens.json, with PyJWT and cryptography: tokens of each algorithm and the public keys that check them.

    pip install pyjwt cryptography && python make.py > tokens.json

The private keys are thrown away, so that the tokens are other ones each time.
"""

import json

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

SECRET = "a secret of the tests, known to everybody who reads it; it has enough bytes for SHA-512"
CLAIMS = {"iss": "https://issuer.test", "sub": "alice", "aud": "mqtt", "iat": 1_700_000_000, "exp": 1_700_003_600}


def public_pem(key):
    encoding, form = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(encoding, form).decode()


def entry(algorithm, key, to_jwk):
    token = jwt.encode(CLAIMS, key, algorithm=algorithm, headers={"kid": algorithm})
    jwk = json.loads(to_jwk(key.public_key())) | {"kid": algorithm, "use": "sig", "alg": algorithm}
    return {"algorithm": algorithm, "token": token, "pem": public_pem(key), "jwk": jwk}


rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
entries = [entry(name, rsa_key, RSAAlgorithm.to_jwk) for name in ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")]
entries.append(entry("ES256", ec.generate_private_key(ec.SECP256R1()), ECAlgorithm.to_jwk))
entries.append(entry("ES384", ec.generate_private_key(ec.SECP384R1()), ECAlgorithm.to_jwk))
entries.append(entry("EdDSA", ed25519.Ed25519PrivateKey.generate(), OKPAlgorithm.to_jwk))
secrets = [{"algorithm": name, "token": jwt.encode(CLAIMS, SECRET, algorithm=name)} for name in ("HS256", "HS384", "HS512")]
print(json.dumps({"secret": SECRET, "public": entries, "hmac": secrets}, indent=1))
