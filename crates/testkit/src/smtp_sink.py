"""An SMTP server for tests: aiosmtpd, answering as the arguments say, one line of JSON for each mail it took."""
import argparse, asyncio, json, ssl, sys
from aiosmtpd.handlers import Message
from aiosmtpd.smtp import SMTP, AuthResult

parser = argparse.ArgumentParser()
parser.add_argument("--port", type=int)
parser.add_argument("--certificate")
parser.add_argument("--key")
parser.add_argument("--wrapped", action="store_true")
parser.add_argument("--starttls", action="store_true")
parser.add_argument("--password")
parser.add_argument("--refuse-address")
parser.add_argument("--greylist", type=int, default=0)
parser.add_argument("--reject-data", action="store_true")
parser.add_argument("--silent-data", type=int, default=0)
parser.add_argument("--out")
args = parser.parse_args()
state = {"greylisted": 0, "silenced": 0}


class Sink:
    async def handle_RCPT(self, server, session, envelope, address, options):
        if args.refuse_address and args.refuse_address in address:
            return "550 5.1.1 no such mailbox"
        if state["greylisted"] < args.greylist:
            state["greylisted"] += 1
            return "451 4.7.1 greylisted, come back later"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        if args.reject_data:
            return "554 5.6.0 content refused"
        with open(args.out, "a") as out:
            out.write(json.dumps({
                "from": envelope.mail_from, "to": envelope.rcpt_tos, "tls": session.ssl is not None,
                "authenticated": bool(session.authenticated), "data": envelope.content.decode("utf-8", "replace")}) + "\n")
        if state["silenced"] < args.silent_data:
            state["silenced"] += 1
            await asyncio.sleep(3600)
        return "250 OK"


def authenticate(server, session, envelope, mechanism, data):
    good = data.password == args.password.encode()
    return AuthResult(success=good, handled=False)


context = None
if args.certificate:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(args.certificate, args.key)


def make():
    return SMTP(
        Sink(), hostname="sink.example", enable_SMTPUTF8=True,
        tls_context=context if args.starttls else None, require_starttls=args.starttls,
        authenticator=authenticate if args.password else None, auth_required=bool(args.password),
        auth_require_tls=bool(args.certificate) and not args.wrapped)


async def main():
    server = await asyncio.get_running_loop().create_server(
        make, "127.0.0.1", args.port, ssl=context if args.wrapped else None)
    async with server:
        await server.serve_forever()


asyncio.run(main())
