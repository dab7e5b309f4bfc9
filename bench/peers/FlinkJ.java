// Job J in Apache Flink's DataStream API: a file source, Jackson, keyBy(user), a KeyedProcessFunction on heap state, a file of decisions.

import java.io.BufferedWriter;
import java.io.FileWriter;
import java.time.Instant;
import java.util.HashSet;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.functions.RichFlatMapFunction;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.file.src.FileSource;
import org.apache.flink.connector.file.src.reader.TextLineInputFormat;
import org.apache.flink.core.fs.Path;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonFactory;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonParser;
import org.apache.flink.shaded.jackson2.com.fasterxml.jackson.core.JsonToken;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.KeyedProcessFunction;
import org.apache.flink.streaming.api.functions.sink.legacy.RichSinkFunction;
import org.apache.flink.util.Collector;

public class FlinkJ {
    static final long HOUR = 3_600_000_000L, DAY = 24 * HOUR;

    public static class Event {
        public String user, id;
        public long time;
        public double duration;
        public int kind = -1;
    }

    public static class Decision {
        public String user;
        public long time, events;
        public double risk, duration;
        public int[] counts;
    }

    public static class User {
        public long events, clock, hour, recentHour;
        public double duration;
        public boolean above, known;
        public int[] counts = new int[5];
        public short[] hours = new short[120];
        public HashSet<String> recent = new HashSet<>(), before = new HashSet<>();
    }

    static int kind(String type) {
        switch (type) {
            case "error_encountered": return 0;
            case "user_login": return 1;
            case "support_ticket_created": return 2;
            case "payment_failed": return 3;
            case "feature_used": return 4;
            default: return -1;
        }
    }

    static int two(String text, int at) {
        return (text.charAt(at) - '0') * 10 + text.charAt(at + 1) - '0';
    }

    /** RFC 3339, in whichever form, as microseconds. */
    static long micros(String text) {
        long year = two(text, 0) * 100 + two(text, 2), month = two(text, 5), day = two(text, 8);
        long shifted = year - (month <= 2 ? 1 : 0), era = shifted / 400, ofEra = shifted - era * 400;
        long ofYear = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
        long days = era * 146097 + ofEra * 365 + ofEra / 4 - ofEra / 100 + ofYear - 719468;
        long micros = (days * 86400 + two(text, 11) * 3600 + two(text, 14) * 60 + two(text, 17)) * 1_000_000;
        int at = 19;
        if (text.charAt(at) == '.') {
            long unit = 100_000;
            for (at = 20; Character.isDigit(text.charAt(at)); at++) {
                micros += (text.charAt(at) - '0') * unit;
                unit /= 10;
            }
        }
        if (text.charAt(at) == 'Z') return micros;
        long offset = (two(text, at + 1) * 60 + two(text, at + 4)) * 60_000_000L;
        return text.charAt(at) == '+' ? micros - offset : micros + offset;
    }

    public static class Parse extends RichFlatMapFunction<String, Event> {
        transient JsonFactory factory;

        @Override
        public void flatMap(String line, Collector<Event> out) throws Exception {
            if (factory == null) factory = new JsonFactory();
            Event event = new Event();
            try (JsonParser parser = factory.createParser(line)) {
                int depth = 0;
                boolean properties = false;
                for (JsonToken token = parser.nextToken(); token != null; token = parser.nextToken()) {
                    if (token == JsonToken.START_OBJECT) {
                        depth++;
                    } else if (token == JsonToken.END_OBJECT) {
                        depth--;
                        if (depth == 1) properties = false;
                    } else if (token == JsonToken.FIELD_NAME) {
                        String name = parser.currentName();
                        if (depth == 1) {
                            switch (name) {
                                case "event_id": parser.nextToken(); event.id = parser.getText(); break;
                                case "user_id": parser.nextToken(); event.user = parser.getText(); break;
                                case "event_type": parser.nextToken(); event.kind = kind(parser.getText()); break;
                                case "timestamp": parser.nextToken(); event.time = micros(parser.getText()); break;
                                case "properties": properties = true; break;
                                case "context": case "metadata": parser.nextToken(); parser.skipChildren(); break;
                                default: break;
                            }
                        } else if (depth == 2 && properties && name.equals("duration")) {
                            parser.nextToken();
                            event.duration = parser.getDoubleValue();
                        }
                    }
                }
            }
            out.collect(event);
        }
    }

    public static class Apply extends KeyedProcessFunction<String, Event, Decision> {
        final long end;
        transient ValueState<User> state;

        Apply(long end) { this.end = end; }

        @Override
        public void open(OpenContext context) {
            state = getRuntimeContext().getState(new ValueStateDescriptor<>("user", User.class));
        }

        @Override
        public void processElement(Event event, Context context, Collector<Decision> out) throws Exception {
            User user = state.value();
            if (user == null) user = new User();
            long hour = Math.floorDiv(event.time, HOUR);
            if (hour > user.recentHour) {
                user.before = user.recent;
                user.recent = new HashSet<>();
                user.recentHour = hour;
            }
            if (user.before.contains(event.id) || !user.recent.add(event.id)) return;
            if (!user.known) {
                user.known = true;
                user.clock = event.time;
                user.hour = hour;
                // The input ends with the greatest watermark, which fires it.
                context.timerService().registerEventTimeTimer(Long.MAX_VALUE - 1);
            }
            sleep(event.user, user, event.time, out);
            user.hour = Math.max(user.hour, hour);
            user.clock = Math.max(user.clock, event.time);
            user.events++;
            user.duration += event.duration;
            if (event.kind >= 0) {
                user.counts[event.kind]++;
                user.hours[(int) (hour % 24) * 5 + event.kind]++;
            }
            evaluate(event.user, user, user.clock, out);
            state.update(user);
        }

        @Override
        public void onTimer(long time, OnTimerContext context, Collector<Decision> out) throws Exception {
            sleep(context.getCurrentKey(), state.value(), end, out);
        }

        static void sleep(String id, User user, long until, Collector<Decision> out) {
            long last = Math.floorDiv(until, HOUR);
            while (user.hour < last) {
                boolean empty = true;
                for (int count : user.counts) empty &= count == 0;
                long next = empty ? (Math.floorDiv(user.hour, 24) + 1) * 24 : user.hour + 1;
                if (next > last) break;
                boolean leaves = false;
                int from = (int) (next % 24) * 5;
                for (int kind = 0; kind < 5; kind++) {
                    leaves |= kind < 4 && user.hours[from + kind] > 0;
                    user.counts[kind] -= user.hours[from + kind];
                    user.hours[from + kind] = 0;
                }
                user.hour = next;
                if (leaves || next % 24 == 0) evaluate(id, user, next * HOUR, out);
            }
        }

        static void evaluate(String id, User user, long now, Collector<Decision> out) {
            double days = (double) (now - user.clock) / DAY;
            int[] counts = user.counts;
            double weighed = -2.0 + 0.25 * days + 0.5 * counts[0] - 0.3 * counts[1] + 0.8 * counts[2] + counts[3];
            double risk = 1.0 / (1.0 + Math.exp(-weighed));
            boolean above = risk > 0.7;
            if (above && !user.above) {
                Decision decision = new Decision();
                decision.user = id;
                decision.time = now;
                decision.risk = risk;
                decision.events = user.events;
                decision.duration = user.duration;
                decision.counts = counts.clone();
                out.collect(decision);
            }
            user.above = above;
        }
    }

    public static class ToFile extends RichSinkFunction<Decision> {
        final String path;
        transient BufferedWriter out;

        ToFile(String path) { this.path = path; }

        @Override
        public void invoke(Decision decision, Context context) throws Exception {
            if (out == null) out = new BufferedWriter(new FileWriter(path + "." + getRuntimeContext().getTaskInfo().getIndexOfThisSubtask()));
            Instant time = Instant.ofEpochSecond(Math.floorDiv(decision.time, 1_000_000L), Math.floorMod(decision.time, 1_000_000L) * 1000);
            int micros = time.getNano() / 1000;
            String text = time.toString().substring(0, 19) + (micros == 0 ? "Z" : String.format(".%06dZ", micros));
            int[] counts = decision.counts;
            out.write("{\"user_id\":\"" + decision.user + "\",\"event_time\":\"" + text + "\",\"risk\":" + decision.risk
                + ",\"events_total\":" + decision.events + ",\"duration_total\":" + decision.duration + ",\"errors_24h\":" + counts[0]
                + ",\"logins_24h\":" + counts[1] + ",\"features_24h\":" + counts[4] + ",\"tickets_24h\":" + counts[2]
                + ",\"payment_failures_24h\":" + counts[3] + "}\n");
        }

        @Override
        public void close() throws Exception {
            if (out != null) out.close();
        }
    }

    public static void main(String[] arguments) throws Exception {
        String input = System.getenv("J_INPUT"), output = System.getenv("J_OUTPUT"), workers = System.getenv("J_WORKERS");
        Configuration settings = new Configuration();
        settings.setString("pipeline.object-reuse", "true");
        settings.setString("state.backend.type", "hashmap");
        settings.setString("taskmanager.numberOfTaskSlots", workers);
        settings.setString("taskmanager.memory.network.min", "128m");
        settings.setString("taskmanager.memory.network.max", "128m");
        settings.setString("restart-strategy.type", "none");
        settings.setString("rest.bind-port", "0");
        settings.setString("rest.port", "0");
        int parallelism = Integer.parseInt(workers);
        StreamExecutionEnvironment flow = StreamExecutionEnvironment.createLocalEnvironment(parallelism, settings);
        FileSource<String> lines = FileSource.forRecordStreamFormat(new TextLineInputFormat(), new Path(input)).build();
        flow.fromSource(lines, WatermarkStrategy.noWatermarks(), "lines")
            .flatMap(new Parse())
            .keyBy(event -> event.user)
            .process(new Apply(Long.parseLong(System.getenv("J_END"))))
            .addSink(new ToFile(output));
        flow.execute("j");
    }
}
