"""A gRPC server and a client of it that are not ours, for crates/gapura/tests/grpc.rs.

    peer.py serve PLAIN_ADDRESS TLS_ADDRESS CERTIFICATE KEY
    peer.py call ADDRESS [CERTIFICATE]

Messages are plain bytes, so that no code has to be generated.
"""

import sys
import threading
import time
from concurrent import futures

import grpc

OPTIONS = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
PIECE = bytes(range(256)) * 128


class Service(grpc.GenericRpcHandler):
    """Every method is a method of this class."""

    def __init__(self):
        self.cancelled = 0
        self.produced = 0
        self.released = threading.Event()
        self.lock = threading.Lock()

    def service(self, details):
        name = details.method.rpartition("/")[2]
        kinds = {
            "Echo": grpc.unary_unary_rpc_method_handler,
            "Fail": grpc.unary_unary_rpc_method_handler,
            "Slow": grpc.unary_unary_rpc_method_handler,
            "Cancelled": grpc.unary_unary_rpc_method_handler,
            "Produced": grpc.unary_unary_rpc_method_handler,
            "Release": grpc.unary_unary_rpc_method_handler,
            "Flood": grpc.unary_stream_rpc_method_handler,
            "Held": grpc.unary_stream_rpc_method_handler,
            "Sum": grpc.stream_unary_rpc_method_handler,
            "Converse": grpc.stream_stream_rpc_method_handler,
            "Refuse": grpc.stream_stream_rpc_method_handler,
        }
        return kinds[name](getattr(self, name)) if name in kinds else None

    def count_cancelled(self):
        with self.lock:
            self.cancelled += 1

    def Echo(self, message, context):
        sent = dict(context.invocation_metadata())
        context.send_initial_metadata((("x-first", sent.get("x-own", "none")),))
        context.set_trailing_metadata((("x-last", "behind"), ("x-bytes-bin", sent.get("x-bytes-bin", b""))))
        return message

    def Fail(self, message, context):
        context.abort(grpc.StatusCode.NOT_FOUND, "nothing here: 100 %")

    def Slow(self, message, context):
        done = threading.Event()
        context.add_callback(done.set)
        done.wait(20)
        if not context.is_active():
            self.count_cancelled()
        return b""

    def Cancelled(self, message, context):
        return str(self.cancelled).encode()

    def Produced(self, message, context):
        return str(self.produced).encode()

    def Release(self, message, context):
        self.released.set()
        return b""

    def Flood(self, message, context):
        self.produced = 0
        for _ in range(int(message)):
            self.produced += 1
            yield PIECE
        if not context.is_active():
            self.count_cancelled()

    def Held(self, message, context):
        self.released.clear()
        yield b"first"
        assert self.released.wait(20), "the first message did not get through"
        yield b"second"

    def Sum(self, messages, context):
        return str(sum(len(message) for message in messages)).encode()

    def Converse(self, messages, context):
        for message in messages:
            yield message

    def Refuse(self, messages, context):
        # The answer ends while the client is still talking.
        yield next(messages)
        context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "enough")


def serve(plain, secure, certificate, key):
    server = grpc.server(futures.ThreadPoolExecutor(64), options=OPTIONS)
    server.add_generic_rpc_handlers((Service(),))
    server.add_insecure_port(plain)
    credentials = grpc.ssl_server_credentials([(read(key), read(certificate))])
    server.add_secure_port(secure, credentials)
    server.start()
    print("ready", flush=True)
    sys.stdin.read()
    server.stop(0)


def read(path):
    with open(path, "rb") as file:
        return file.read()


class Calls:
    """The client's side; each method whose name starts with `check` is one."""

    def __init__(self, channel):
        self.channel = channel

    def unary(self, name, message=b"", **options):
        return self.channel.unary_unary("/t.T/" + name).with_call(message, timeout=20, **options)

    def number(self, name):
        return int(self.unary(name)[0])

    def check_messages_and_metadata(self):
        own = (("x-own", "mine"), ("x-bytes-bin", bytes(range(256))))
        answer, call = self.unary("Echo", b"hello", metadata=own)
        assert answer == b"hello", answer
        assert dict(call.initial_metadata())["x-first"] == "mine"
        last = dict(call.trailing_metadata())
        assert last["x-last"] == "behind" and last["x-bytes-bin"] == bytes(range(256)), last
        assert self.unary("Echo", b"")[0] == b""

    def check_a_large_message(self):
        large = PIECE * 256
        assert self.unary("Echo", large)[0] == large

    def check_an_error_has_its_status_and_words(self):
        error = failure(lambda: self.unary("Fail"))
        assert error.code() == grpc.StatusCode.NOT_FOUND, error
        assert error.details() == "nothing here: 100 %", error.details()
        assert failure(lambda: self.unary("Unknown")).code() == grpc.StatusCode.UNIMPLEMENTED

    def check_a_deadline_reaches_the_server(self):
        before = self.number("Cancelled")
        call = self.channel.unary_unary("/t.T/Slow")
        error = failure(lambda: call(b"", timeout=0.3))
        assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED, error
        until("the server learns of it", lambda: self.number("Cancelled") > before)

    def check_a_message_goes_on_as_it_comes(self):
        answers = self.channel.unary_stream("/t.T/Held")(b"", timeout=20)
        assert next(answers) == b"first"
        self.unary("Release")
        assert list(answers) == [b"second"]

    def check_many_messages_from_the_server(self):
        answers = self.channel.unary_stream("/t.T/Flood")(b"500", timeout=60)
        assert sum(1 for answer in answers if answer == PIECE) == 500

    def check_many_messages_from_the_client(self):
        total = self.channel.stream_unary("/t.T/Sum")((PIECE for _ in range(500)), timeout=60)
        assert int(total) == 500 * len(PIECE)

    def check_a_conversation(self):
        heard = threading.Semaphore(1)

        def say():
            for turn in range(200):
                assert heard.acquire(timeout=20), "no answer to the message before"
                yield str(turn).encode()

        for turn, answer in enumerate(self.channel.stream_stream("/t.T/Converse")(say(), timeout=60)):
            assert answer == str(turn).encode()
            heard.release()
        assert turn == 199

    def check_both_talk_before_either_listens(self):
        said = [0]

        def say():
            for _ in range(1500):
                said[0] += 1
                yield PIECE

        answers = self.channel.stream_stream("/t.T/Converse")(say(), timeout=120)
        steady(lambda: said[0])
        assert said[0] < 1500, "nobody holds it back"
        assert sum(1 for answer in answers if answer == PIECE) == 1500

    def check_who_does_not_listen_is_not_talked_to(self):
        answers = self.channel.unary_stream("/t.T/Flood")(b"3000", timeout=120)
        assert next(answers) == PIECE
        produced = steady(lambda: self.number("Produced"))
        assert produced < 2000, produced
        assert sum(1 for _ in answers) == 2999

    def check_an_answer_that_ends_early(self):
        def say():
            yield b"one"
            time.sleep(20)

        answers = self.channel.stream_stream("/t.T/Refuse")(say(), timeout=15)
        assert next(answers) == b"one"
        error = failure(lambda: next(answers))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED and error.details() == "enough", error

    def check_a_call_that_is_given_up(self):
        before = self.number("Cancelled")
        answers = self.channel.unary_stream("/t.T/Flood")(b"100000", timeout=60)
        next(answers)
        answers.cancel()
        until("the server stops", lambda: self.number("Cancelled") > before or self.number("Produced") < 100000)

    def check_many_calls_at_once(self):
        with futures.ThreadPoolExecutor(32) as pool:
            answers = pool.map(lambda n: self.unary("Echo", str(n).encode())[0], range(300))
            assert list(answers) == [str(n).encode() for n in range(300)]


def failure(call):
    try:
        call()
    except grpc.RpcError as error:
        return error
    raise AssertionError("the call did not fail")


def until(what, holds):
    end = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < end, "waited in vain: " + what
        time.sleep(0.02)


def steady(number):
    """The number once it does not grow any more."""
    last, since = number(), time.monotonic()
    while time.monotonic() - since < 0.5:
        time.sleep(0.05)
        now = number()
        if now != last:
            last, since = now, time.monotonic()
    return last


def call(address, certificate=None):
    if certificate:
        credentials = grpc.ssl_channel_credentials(read(certificate))
        options = OPTIONS + [("grpc.ssl_target_name_override", "localhost")]
        channel = grpc.secure_channel(address, credentials, options)
    else:
        channel = grpc.insecure_channel(address, OPTIONS)
    calls = Calls(channel)
    for name in (name for name in dir(calls) if name.startswith("check")):
        getattr(calls, name)()
        print("ok", name, flush=True)
    channel.close()


if __name__ == "__main__":
    {"serve": serve, "call": call}[sys.argv[1]](*sys.argv[2:])
