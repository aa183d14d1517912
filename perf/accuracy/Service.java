import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetSocketAddress;
import java.net.Socket;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardOpenOption;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.Executors;
import java.util.concurrent.ThreadLocalRandom;
import java.util.stream.IntStream;

/**
 * A service of the suite {@code accuracy}: Service POOL PORT LOG [NAME=URL]...; see service.py for what paths mean. POOL is the number of
 * threads that serve.
 */
public class Service {
    static final Map<String, URI> targets = new HashMap<>();
    static final HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    static Path log;

    /** Each thread its own connection to Redis. */
    static final ThreadLocal<Map<URI, Socket>> sockets = ThreadLocal.withInitial(HashMap::new);

    public static void main(String[] arguments) throws IOException {
        log = Path.of(arguments[2]);
        for (String target : Arrays.copyOfRange(arguments, 3, arguments.length)) {
            String[] parts = target.split("=", 2);
            targets.put(parts[0], URI.create(parts[1]));
        }
        HttpServer server = HttpServer.create(new InetSocketAddress(System.getenv("LISTEN"), Integer.parseInt(arguments[1])), 256);
        server.setExecutor(Executors.newFixedThreadPool(Integer.parseInt(arguments[0])));
        server.createContext("/", Service::serve);
        server.start();
    }

    static void serve(HttpExchange exchange) throws IOException {
        String[] path = exchange.getRequestURI().getPath().substring(1).split("/");
        String[] hop = path[0].split("\\.");
        String id = path[path.length - 1];
        String rest = String.join("/", Arrays.copyOfRange(path, 1, path.length - 1));
        String traceparent = exchange.getRequestHeaders().getFirst("traceparent");
        note("served", id, "-");
        List<String> calls = IntStream.rangeClosed(1, hop.length > 1 ? Integer.parseInt(hop[1]) : 0).mapToObj(k -> id + "." + k).toList();
        try {
            switch (hop[0]) {
                case "leaf" -> { }
                case "seq" -> {
                    for (String call : calls) {
                        note("called", call, id);
                        URI target = targets.get(hop[2]);
                        if (target.getScheme().equals("redis")) {
                            redis(target, call);
                        } else {
                            client.send(request(target, rest, call, traceparent), BodyHandlers.ofString());
                        }
                    }
                }
                // The thread of the pool is free again before there is an answer.
                case "async" -> {
                    CompletableFuture<?>[] answers = calls.stream().map(call -> {
                        note("called", call, id);
                        return client.sendAsync(request(targets.get(hop[2]), rest, call, traceparent), BodyHandlers.ofString());
                    }).toArray(CompletableFuture[]::new);
                    CompletableFuture.allOf(answers).thenRun(() -> answer(exchange, id));
                    return;
                }
                default -> throw new IllegalArgumentException(hop[0]);
            }
        } catch (InterruptedException interrupted) {
            Thread.currentThread().interrupt();
        }
        answer(exchange, id);
    }

    static void answer(HttpExchange exchange, String id) {
        byte[] body = ("done " + id + "\n").getBytes();
        try (exchange) {
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
        } catch (IOException error) {
            error.printStackTrace();
        }
    }

    static HttpRequest request(URI target, String rest, String id, String traceparent) {
        String path = rest.isEmpty() ? "/" + id : "/" + rest + "/" + id;
        HttpRequest.Builder request = HttpRequest.newBuilder(target.resolve(path)).header("x-oracle-id", id);
        if (traceparent != null) {
            String span = String.format("%016x", ThreadLocalRandom.current().nextLong());
            request.header("traceparent", "00-" + traceparent.split("-")[1] + "-" + span + "-01");
        }
        return request.build();
    }

    static void redis(URI target, String id) throws IOException {
        Socket socket = sockets.get().get(target);
        if (socket == null) {
            socket = new Socket(target.getHost(), target.getPort());
            sockets.get().put(target, socket);
        }
        String key = "k:" + id;
        socket.getOutputStream().write(("*2\r\n$3\r\nGET\r\n$" + key.length() + "\r\n" + key + "\r\n").getBytes());
        InputStream answer = socket.getInputStream();
        int previous = 0;
        for (int next = answer.read(); next >= 0 && !(previous == '\r' && next == '\n'); next = answer.read()) {
            previous = next;
        }
    }

    static void note(String what, String id, String parent) {
        try {
            // PID/task/TID: the name that the kernel has for this thread.
            String[] self = Files.readSymbolicLink(Path.of("/proc/thread-self")).toString().split("/");
            String line = String.join(" ", what, id, parent, self[0], self[2], Long.toString(System.nanoTime())) + "\n";
            Files.writeString(log, line, StandardOpenOption.CREATE, StandardOpenOption.APPEND);
        } catch (IOException error) {
            error.printStackTrace();
        }
    }
}
