package io.penstock.stream;

public final class Pipeline {
    private Pipeline() {}
}
