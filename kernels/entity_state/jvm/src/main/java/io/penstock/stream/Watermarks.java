package io.penstock.stream;

import java.time.Duration;
import org.apache.flink.api.common.eventtime.TimestampAssigner;
import org.apache.flink.api.common.eventtime.TimestampAssignerSupplier;
import org.apache.flink.api.common.eventtime.Watermark;
import org.apache.flink.api.common.eventtime.WatermarkGenerator;
import org.apache.flink.api.common.eventtime.WatermarkGeneratorSupplier;
import org.apache.flink.api.common.eventtime.WatermarkOutput;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;

/** Watermarks per partition: as far behind the newest row as rows may be out of order. */
final class Watermarks implements WatermarkStrategy<Event> {
    private static final long serialVersionUID = 1L;

    private final long outOfOrderMs;

    private Watermarks(long outOfOrderMs) {
        this.outOfOrderMs = outOfOrderMs;
    }

    /** Returns the watermarks of a source; only within a source can it wait for another one. */
    static WatermarkStrategy<Event> of(Settings settings, boolean inSource) {
        WatermarkStrategy<Event> made = new Watermarks(settings.outOfOrderMs);
        if (settings.idleMs > 0) {
            made = made.withIdleness(Duration.ofMillis(settings.idleMs));
        }
        if (inSource && settings.alignMs > 0) {
            // Else one source may run far ahead of the other, and what it read has to be held.
            made =
                    made.withWatermarkAlignment(
                            "penstock", Duration.ofMillis(settings.alignMs), Duration.ofSeconds(1));
        }
        return made;
    }

    @Override
    public TimestampAssigner<Event> createTimestampAssigner(
            TimestampAssignerSupplier.Context context) {
        return (event, ignored) -> event.orderTime();
    }

    @Override
    public WatermarkGenerator<Event> createWatermarkGenerator(
            WatermarkGeneratorSupplier.Context context) {
        return new Generator(outOfOrderMs);
    }

    private static final class Generator implements WatermarkGenerator<Event> {
        private final long delay;
        private long newest;

        Generator(long outOfOrderMs) {
            delay = outOfOrderMs + 1;
            newest = Long.MIN_VALUE + delay;
        }

        @Override
        public void onEvent(Event event, long timestamp, WatermarkOutput output) {
            if (event.kind() != Event.DEAD) {
                newest = Math.max(newest, timestamp);
            }
        }

        @Override
        public void onPeriodicEmit(WatermarkOutput output) {
            output.emitWatermark(new Watermark(newest - delay));
        }
    }
}
