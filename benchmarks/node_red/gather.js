// Turns the records of a message into points, and gathers points for one write: 5000, or what came
// in 250 ms, as the collector does.
const [, , fleet, device] = msg.topic.split("/");
const tags = {fleet, device};
const epoch = msg.payload.epoch;
const points = context.get("points") || [];
for (const {seq, record} of msg.payload.records) {
    const {kind, time_ns, ...fields} = record;
    for (const name in fields)
        if (typeof fields[name] === "object") fields[name] = JSON.stringify(fields[name]);
    fields.seq = seq;
    fields.epoch = epoch;
    points.push({measurement: kind, tags, fields, timestamp: time_ns});
}
clearTimeout(context.get("timer"));
const flush = () => {
    const payload = context.get("points");
    context.set("points", []);
    node.send({payload});
};
context.set("points", points);
if (points.length >= 5000) flush();
else context.set("timer", setTimeout(flush, 250));
