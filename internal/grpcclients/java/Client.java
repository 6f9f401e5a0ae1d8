import io.grpc.CallOptions;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.MethodDescriptor;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.ClientCalls;
import io.grpc.stub.StreamObserver;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/**
 * Calls a target so many times a second and prints a line of JSON for each answer:
 *
 * <pre>java -cp LIBRARIES:CLASSES Client TARGET CALLS_A_SECOND</pre>
 *
 * GRPC_XDS_BOOTSTRAP names its bootstrap.
 */
public class Client {
  private static final long PATIENCE_SECONDS = 5; // for a call

  private static final MethodDescriptor.Marshaller<byte[]> AS_IT_IS =
      new MethodDescriptor.Marshaller<>() {
        @Override
        public InputStream stream(byte[] bytes) {
          return new ByteArrayInputStream(bytes);
        }

        @Override
        public byte[] parse(InputStream in) {
          try {
            return in.readAllBytes();
          } catch (IOException e) {
            throw new UncheckedIOException(e);
          }
        }
      };

  private static final MethodDescriptor<byte[], byte[]> WHO =
      MethodDescriptor.newBuilder(AS_IT_IS, AS_IT_IS)
          .setType(MethodDescriptor.MethodType.UNARY)
          .setFullMethodName("stellmap.test.Echo/Who")
          .build();

  public static void main(String[] args) {
    ManagedChannel channel =
        Grpc.newChannelBuilder(args[0], InsecureChannelCredentials.create()).build();
    // What it could not do in time it does not make up for: calls in a heap would find no answer in time.
    long everyMicros = 1_000_000 / Long.parseLong(args[1]);
    Executors.newSingleThreadScheduledExecutor()
        .scheduleWithFixedDelay(() -> call(channel), 0, everyMicros, TimeUnit.MICROSECONDS);
  }

  private static void call(ManagedChannel channel) {
    CallOptions options = CallOptions.DEFAULT.withDeadlineAfter(PATIENCE_SECONDS, TimeUnit.SECONDS);
    ClientCalls.asyncUnaryCall(
        channel.newCall(WHO, options),
        new byte[0],
        new StreamObserver<byte[]>() {
          @Override
          public void onNext(byte[] answer) {
            tell("from", new String(answer, StandardCharsets.UTF_8));
          }

          @Override
          public void onError(Throwable e) {
            tell("error", e instanceof StatusRuntimeException ? e.getMessage() : e.toString());
          }

          @Override
          public void onCompleted() {}
        });
  }

  private static void tell(String key, String value) {
    StringBuilder out = new StringBuilder("{\"" + key + "\": \"");
    for (char c : value.toCharArray()) {
      out.append(c == '"' || c == '\\' || c < ' ' ? ' ' : c);
    }
    System.out.println(out.append("\"}"));
  }
}
