import { App } from 'aws-cdk-lib';
import { ApiStack } from '../lib/api-stack';
import { DataStack } from '../lib/data-stack';

// No account or region here: every environment deploys the same two stacks,
// and aphex says where.
const app = new App();
const environment = process.env.APHEX_ENVIRONMENT ?? 'local';

const data = new DataStack(app, 'shop-data', { environment });
new ApiStack(app, 'shop-api', { environment, orders: data.orders });
