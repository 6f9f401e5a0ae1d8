// Calls a target so many times a second and prints a line of JSON for each answer:
//
//	node client.js TARGET CALLS_A_SECOND
//
// GRPC_XDS_BOOTSTRAP names its bootstrap.
const grpc = require('@grpc/grpc-js');
const xds = require('@grpc/grpc-js-xds');

const [target, rate] = process.argv.slice(2);
const patience = 5000; // milliseconds for a call
const asItIs = (bytes) => bytes;

xds.register();
const client = new grpc.Client(target, grpc.credentials.createInsecure());
setInterval(() => {
  client.makeUnaryRequest('/stellmap.test.Echo/Who', asItIs, asItIs, Buffer.alloc(0), new grpc.Metadata(), { deadline: Date.now() + patience }, (error, answer) => {
    console.log(JSON.stringify(error ? { error: error.message } : { from: answer.toString() }));
  });
}, 1000 / Number(rate));
