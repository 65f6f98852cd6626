import io.etcd.jetcd.ByteSequence;
import io.etcd.jetcd.Client;
import io.etcd.jetcd.KV;
import io.etcd.jetcd.lock.LockResponse;
import io.etcd.jetcd.support.CloseableClient;
import io.etcd.jetcd.support.Observers;
import java.util.Arrays;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;

/**
 * Takes a lock by jetcd again and again, and under it appends the revision of its place in the queue to a shared key:
 * Locks HOST:PORT,... NAME COUNT
 */
public class Locks {
    public static void main(String[] words) throws Exception {
        String[] endpoints = Arrays.stream(words[0].split(",")).map(e -> "http://" + e).toArray(String[]::new);
        ByteSequence name = bytes(words[1]), shared = bytes(words[1] + "-order");
        int count = Integer.parseInt(words[2]);
        try (Client client = Client.builder().endpoints(endpoints).build()) {
            KV kv = client.getKVClient();
            long lease = of(client.getLeaseClient().grant(10)).getID();
            try (CloseableClient alive = client.getLeaseClient().keepAlive(lease, Observers.observer(answer -> {}))) {
                for (int round = 0; round < count; round++) {
                    LockResponse held = of(client.getLockClient().lock(name, lease));
                    long mine = of(kv.get(held.getKey())).getKvs().get(0).getCreateRevision();
                    var before = of(kv.get(shared)).getKvs();
                    String order = before.isEmpty() ? "" : before.get(0).getValue() + " ";
                    of(kv.put(shared, bytes(order + "jetcd:" + mine)));
                    of(client.getLockClient().unlock(held.getKey()));
                }
            }
            of(client.getLeaseClient().revoke(lease));
        }
    }

    private static ByteSequence bytes(String text) {
        return ByteSequence.from(text.getBytes());
    }

    private static <T> T of(CompletableFuture<T> answer) throws Exception {
        return answer.get(90, TimeUnit.SECONDS);
    }
}
