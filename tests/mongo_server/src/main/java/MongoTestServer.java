import de.bwaldvogel.mongo.MongoBackend;
import de.bwaldvogel.mongo.MongoDatabase;
import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import de.bwaldvogel.mongo.ServerVersion;
import de.bwaldvogel.mongo.backend.CollectionOptions;
import de.bwaldvogel.mongo.backend.Cursor;
import de.bwaldvogel.mongo.backend.CursorRegistry;
import de.bwaldvogel.mongo.backend.Index;
import de.bwaldvogel.mongo.backend.IndexKey;
import de.bwaldvogel.mongo.backend.KeyValue;
import de.bwaldvogel.mongo.backend.QueryParameters;
import de.bwaldvogel.mongo.backend.QueryResult;
import de.bwaldvogel.mongo.backend.memory.MemoryBackend;
import de.bwaldvogel.mongo.backend.memory.MemoryCollection;
import de.bwaldvogel.mongo.backend.memory.MemoryDatabase;
import de.bwaldvogel.mongo.backend.memory.index.MemoryUniqueIndex;
import de.bwaldvogel.mongo.bson.Document;
import de.bwaldvogel.mongo.oplog.Oplog;
import java.io.IOException;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.concurrent.ConcurrentSkipListMap;
import java.util.function.Supplier;

/** An in-memory server that speaks MongoDB's wire protocol, for tests: MongoTestServer PORT. */
public class MongoTestServer {

    /**
     * Finds candidates by the index's own keys even when the query has further conditions, and by ranges of text over
     * a single key; every condition is checked on the candidates afterwards. The original scans everything then.
     */
    static class BetterIndex extends MemoryUniqueIndex {
        private static final Set<String> BOUNDS = Set.of("$gte", "$lte");

        private final List<String> keys;
        private final ConcurrentSkipListMap<String, Integer> texts = new ConcurrentSkipListMap<>();

        BetterIndex(String name, List<IndexKey> indexKeys, boolean sparse) {
            super(name, indexKeys, sparse);
            keys = indexKeys.stream().map(IndexKey::getKey).toList();
        }

        private Document onlyKeys(Document query) {
            if (query.size() <= keys.size() || !query.keySet().containsAll(keys)) {
                return query;
            }
            Document cut = new Document();
            keys.forEach(key -> cut.put(key, query.get(key)));
            return cut;
        }

        /** The range asked for if both bounds are given, else null. */
        private Document range(Document query) {
            if (keys.size() == 1
                    && query.get(keys.get(0)) instanceof Document condition
                    && condition.keySet().equals(BOUNDS)
                    && condition.values().stream().allMatch(String.class::isInstance)) {
                return condition;
            }
            return null;
        }

        @Override
        public synchronized boolean canHandle(Document query) {
            return range(query) != null || super.canHandle(onlyKeys(query));
        }

        @Override
        public synchronized Iterable<Integer> getPositions(Document query) {
            Document range = range(query);
            if (range == null) {
                return super.getPositions(onlyKeys(query));
            }
            String from = (String) range.get("$gte");
            String to = (String) range.get("$lte");
            return from.compareTo(to) > 0 ? List.of() : List.copyOf(texts.subMap(from, true, to, true).values());
        }

        @Override
        protected boolean putKeyPosition(KeyValue keyValue, Integer position) {
            boolean added = super.putKeyPosition(keyValue, position);
            if (added && keys.size() == 1 && keyValue.get(0) instanceof String text) {
                texts.put(text, position);
            }
            return added;
        }

        @Override
        protected Integer removeDocument(KeyValue keyValue) {
            if (keys.size() == 1 && keyValue.get(0) instanceof String text) {
                texts.remove(text);
            }
            return super.removeDocument(keyValue);
        }
    }

    /**
     * Answers with copies. The original hands out its live documents, which are written to the socket after the
     * collection's lock is gone: a reader could see half of a later update.
     */
    static class Collection extends MemoryCollection {
        private boolean changing;

        Collection(MongoDatabase database, String name, CollectionOptions options, CursorRegistry cursors) {
            super(database, name, options, cursors);
        }

        private synchronized <T> T change(Supplier<T> body) {
            changing = true;
            try {
                return body.get();
            } finally {
                changing = false;
            }
        }

        private static List<Document> copies(Iterable<Document> documents) {
            List<Document> copies = new ArrayList<>();
            // Updates replace whole top-level values, so these can be shared.
            documents.forEach(document -> copies.add(document.clone()));
            return copies;
        }

        @Override
        public synchronized Document findAndModify(Document query) {
            Document answer = change(() -> super.findAndModify(query));
            return answer.get("value") instanceof Document value ? answer.append("value", value.clone()) : answer;
        }

        @Override
        public synchronized int deleteDocuments(Document selector, int limit, Oplog oplog) {
            return change(() -> super.deleteDocuments(selector, limit, oplog));
        }

        @Override
        public synchronized QueryResult handleQuery(QueryParameters parameters) {
            QueryResult live = super.handleQuery(parameters);
            return changing ? live : new QueryResult(copies(live), live.getCursorId());
        }

        @Override
        protected Cursor createCursor(List<Document> remaining) {
            return super.createCursor(copies(remaining));
        }
    }

    static class Database extends MemoryDatabase {
        Database(String name, CursorRegistry cursors) {
            super(name, cursors);
        }

        @Override
        protected MemoryCollection openOrCreateCollection(String name, CollectionOptions options) {
            return new Collection(this, name, options, cursorRegistry);
        }

        @Override
        protected Index<Integer> openOrCreateUniqueIndex(String collection, String name, List<IndexKey> keys, boolean sparse) {
            return new BetterIndex(name, keys, sparse);
        }
    }

    static class Backend extends MemoryBackend {
        @Override
        public MemoryDatabase openOrCreateDatabase(String name) {
            return new Database(name, getCursorRegistry());
        }
    }

    /** Current drivers refuse wire versions below 9; the server's own highest is 8. */
    static final MongoVersion VERSION = new MongoVersion() {
        public List<Integer> getVersionArray() {
            return ServerVersion.MONGO_5_0.getVersionArray();
        }

        public int getWireVersion() {
            return 13;
        }

        public String toVersionString() {
            return "5.0.0";
        }
    };

    public static void main(String[] args) throws IOException {
        MongoBackend backend = new Backend().version(VERSION);
        MongoServer server = new MongoServer(backend);
        server.bind("127.0.0.1", Integer.parseInt(args[0]));
        System.out.println(server.getLocalAddress().getPort());
        System.in.transferTo(java.io.OutputStream.nullOutputStream());
        // The process that started this one is gone, or wants it gone.
        Runtime.getRuntime().halt(0);
    }
}
