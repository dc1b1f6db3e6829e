package io.penstock.stream;

import java.io.Serializable;
import org.apache.flink.api.common.functions.RuntimeContext;
import org.apache.flink.streaming.api.TimeDomain;

/**
 * The work of one keyed operator. It is no Flink function itself because the last one of the chain
 * also listens to control messages, and Flink has another class for that.
 */
interface Stage extends Serializable {
    void open(RuntimeContext context) throws Exception;

    void handle(Event event, Host host) throws Exception;

    void onTimer(long timestamp, TimeDomain domain, Host host) throws Exception;
}
