import io.grpc.ChannelCredentials;
import io.grpc.TlsChannelCredentials;
import io.grpc.xds.XdsCredentialsProvider;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Map;

/**
 * Has the credentials {@code tls} of a bootstrap take the files that it names, as in other languages: the provider that gRPC brings
 * along knows the system's authorities only. gRPC finds it by META-INF/services.
 */
public class TlsFiles extends XdsCredentialsProvider {
  @Override
  protected ChannelCredentials newChannelCredentials(Map<String, ?> config) {
    TlsChannelCredentials.Builder tls = TlsChannelCredentials.newBuilder();
    try {
      if (config.get("ca_certificate_file") instanceof String ca) {
        tls.trustManager(new File(ca));
      }
      if (config.get("certificate_file") instanceof String certificate
          && config.get("private_key_file") instanceof String key) {
        tls.keyManager(new File(certificate), new File(key));
      }
    } catch (IOException e) {
      throw new UncheckedIOException(e);
    }
    return tls.build();
  }

  @Override
  protected String getName() {
    return "tls";
  }

  @Override
  public boolean isAvailable() {
    return true;
  }

  @Override
  public int priority() {
    return 6; // of two for one name the higher is taken; gRPC's has 5
  }
}
