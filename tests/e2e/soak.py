"""soak.py PORT PID REQUESTS CLIENTS FILE: abuses the server at PORT and checks what it says.

FILE has the texts of lone runs; made first where it does not exist. PID: whose memory must not grow; 0: nobody's.
"""
import http.client, json, os, random, socket, sys, threading, time

port, pid, requests, clients = (int(a) for a in sys.argv[1:5])
file = sys.argv[5]
LONGEST = 120  # seconds that any request may take here


def kinds():
    """Requests whose answers are known."""
    return [{"prompt": "namespace ziggurat"[: 1 + 3 * i % 18] * (1 + i % 3), "max_tokens": 5 + 7 * i % 50, "seed": i, "n": 1 + i % 2,
             "temperature": [0, 1, 2][i % 3], "echo": i % 4 == 0, "logprobs": 1 if i % 5 == 0 else None,
             "stop": "e" if i % 7 == 0 else None} for i in range(24)]


def ask(body, stream=False, path="/v1/completions"):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST)
    data = body if isinstance(body, bytes) else json.dumps(dict(body, stream=stream)).encode()
    connection.request("POST", path, data)
    reply = connection.getresponse()
    return reply.status, reply.headers, reply.read()


def choices(body, stream):
    """The texts of an answer, asked again as often as the server says that it is busy."""
    while True:
        status, headers, reply = ask(body, stream)
        if status != 429:
            break
        assert int(headers["Retry-After"]) >= 1, headers
        time.sleep(random.random())
    assert status == 200, reply
    if not stream:
        return [c["text"] for c in json.loads(reply)["choices"]]
    texts = [""] * body["n"]
    events = [e[6:] for e in reply.decode().split("\n\n") if e]
    assert events[-1] == "[DONE]", events[-1]
    for event in events[:-1]:
        for c in json.loads(event)["choices"]:
            texts[c["index"]] += c["text"]
    return texts


def leave(body):
    data = json.dumps(dict(body, stream=random.random() < 0.5, max_tokens=100)).encode()
    with socket.create_connection(("127.0.0.1", port), timeout=LONGEST) as s:
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        if random.random() < 0.5:
            s.recv(random.randrange(1, 400))


def stall(body):
    data = json.dumps(dict(body, stream=True)).encode()
    with socket.create_connection(("127.0.0.1", port), timeout=LONGEST) as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        s.sendall(b"POST /v1/completions HTTP/1.1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(data) + data)
        got = b""
        while True:
            part = s.recv(64)
            if not part:
                break
            got += part
            time.sleep(0.002)
        assert b"[DONE]" in got or b" 429 " in got, got[-200:]


def nonsense():
    body = random.choice([b"", b"{", b"[" * 5000, b"\xff\xfe", json.dumps({"prompt": "a", "max_tokens": 10**9}).encode(),
                          json.dumps({"prompt": [10**9]}).encode(), json.dumps({"prompt": "a" * (1 << 20)}).encode(),
                          json.dumps({"prompt": [[1] * 1000] * 200}).encode(), json.dumps({"unknown": 1}).encode()])
    status, _, reply = ask(body)
    assert status == 400 and json.loads(reply)["error"]["message"], (status, reply[:200])
    assert ask(b"x" * (9 << 20))[0] == 413
    too_large.append(1)


def metric(name):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=LONGEST)
    connection.request("GET", "/metrics")
    return [float(line.split()[-1]) for line in connection.getresponse().read().decode().splitlines() if line.startswith(name + " ")][0]


def memory():
    return int(next(line.split()[1] for line in open("/proc/%d/status" % pid) if line.startswith("VmRSS"))) / 1024


def client(number):
    try:
        while True:
            with lock:
                if not left:
                    return
                left.pop()
            i = random.randrange(len(known))
            what = random.random()
            if what < 0.6:
                stream = random.random() < 0.5
                got = choices(known[i], stream)
                assert got == alone[i], (known[i], stream, got, alone[i])
            elif what < 0.75:
                leave(known[i])
            elif what < 0.85:
                stall(known[i])
            else:
                nonsense()
            done.append(number)
    except Exception as error:  # told by the main thread
        errors.append(error)
        raise


random.seed(5)
known, lock, done, errors, too_large = kinds(), threading.Lock(), [], [], []
if not os.path.exists(file):
    json.dump([choices(body, False) for body in known], open(file, "w"))
alone = json.load(open(file))

rounds = []
for share in (requests // 3, requests // 3, requests - requests // 3 * 2):  # the first ones warm up threads and their heaps
    left = [0] * share
    threads = [threading.Thread(target=client, args=(n,)) for n in range(clients)]
    [t.start() for t in threads]
    [t.join(600) for t in threads]
    assert not any(t.is_alive() for t in threads), "a request is stuck"
    assert not errors, errors[0]
    began = time.monotonic()
    while metric("ziggurat_requests_waiting") > 0 and time.monotonic() - began < 30:
        time.sleep(0.1)
    for gauge in ("requests_waiting", "texts_running", "texts_waiting", "cache_blocks_held"):
        assert metric("ziggurat_" + gauge) == 0, gauge
    rounds.append(memory() if pid else 0)
assert len(done) == requests
refused = 'ziggurat_requests_total{path="/v1/completions",code="413"}'
assert not too_large or metric(refused) == len(too_large), "not all that was too large is counted"
assert not pid or metric("ziggurat_preempted_total") > 0, "the cache is to be too small for all texts"
assert rounds[2] - rounds[1] < 16, "memory grew from %.0f over %.0f to %.0f MB" % tuple(rounds)
print("%d requests of %d clients; memory %.0f, %.0f, then %.0f MB; %d texts gave up their place, %d tokens were shared" % (
    requests, clients, *rounds, metric("ziggurat_preempted_total"), metric("ziggurat_shared_tokens_total")))
